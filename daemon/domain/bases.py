"""Digests over a base model's files, so that an adapter never meets another base."""

# JSON of any kind.
# pyright: reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from adaptd.daemon.wire.errors import SettingsError
from adaptd.daemon.wire.files import open_regular, read_regular

DIGEST_FILE = "adaptd-digest.json"
_CHUNK_BYTES = 1 << 20
_Stamp = tuple[str, int, int]  # file name, bytes, mtime in ns


def base_digest(directory: Path) -> str:
    """Return the SHA-256 over config.json and every safetensors file, names included, in hex.

    Reads all weights (about a second a GB) unless the conversion left its digest beside them and
    the files have not changed since. The process remembers the result.

    Raises:
        SettingsError: the directory holds no such model.
    """
    stamps = _stat_files(directory, ["config.json", *_list_weights(directory)])
    return _read_cached_digest(directory, stamps) or _hash_files(directory, stamps)


def template_digest(directory: Path) -> str:
    """Return the SHA-256 over the chat template and tokenizer.json, which make ids, in hex.

    Raises:
        SettingsError: the directory has no template or no tokenizer.
    """
    template = hashlib.sha256(chat_template(directory).encode()).digest()
    tokenizer = _hash_files(directory, _stat_files(directory, ["tokenizer.json"]))
    return hashlib.sha256(template + bytes.fromhex(tokenizer)).hexdigest()


def chat_template(directory: Path) -> str:
    """Read the template vLLM renders messages with: chat_template.jinja, else the tokenizer's.

    Raises:
        SettingsError: the directory has neither.
    """
    own_file = directory / "chat_template.jinja"
    config = directory / "tokenizer_config.json"
    try:
        if own_file.exists():
            return read_regular(own_file).decode()
        text = json.loads(read_regular(config)) if config.exists() else {}
    except (OSError, ValueError) as error:  # ValueError: no JSON, or not UTF-8
        raise _refuse_directory(directory, error) from error
    template = text.get("chat_template") if isinstance(text, dict) else None
    if isinstance(template, str):
        return template
    raise SettingsError(str(directory), "it has no chat template", "Add a chat_template.jinja")


def write_digest(directory: Path) -> str:
    """Compute the base's digest, store it beside the weights and return it."""
    stamps = _stat_files(directory, ["config.json", *_list_weights(directory)])
    digest = _hash_files(directory, stamps)
    content = {"base": digest, "template": template_digest(directory), "files": stamps}
    (directory / DIGEST_FILE).write_text(json.dumps(content, indent=1))
    return digest


def _list_weights(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.safetensors")) or ["model.safetensors"]


def _stat_files(directory: Path, names: list[str]) -> tuple[_Stamp, ...]:
    try:
        found = [(name, _stat_regular(directory / name)) for name in names]
    except OSError as error:
        raise _refuse_directory(directory, error) from error
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in found)


def _stat_regular(path: Path) -> os.stat_result:
    with open_regular(path) as file:
        return os.fstat(file.fileno())


def _refuse_directory(directory: Path, error: OSError | ValueError) -> SettingsError:
    reason = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)
    problem = f"it is not a model directory ({reason})"
    remedy = "Give a directory with config.json, *.safetensors and a tokenizer"
    return SettingsError(str(directory), problem, remedy)


def _read_cached_digest(directory: Path, stamps: tuple[_Stamp, ...]) -> str | None:
    try:
        content: dict[str, Any] = json.loads(read_regular(directory / DIGEST_FILE))
    except (OSError, ValueError):
        return None
    same = content.get("files") == [list(stamp) for stamp in stamps]
    return content.get("base") if same else None


@lru_cache(maxsize=32)
def _hash_files(directory: Path, stamps: tuple[_Stamp, ...]) -> str:
    # The stamps are part of the cache's key: a changed file is read again.
    digest = hashlib.sha256()
    for name, size, _ in stamps:
        digest.update(f"{name}\0{size}\0".encode())
        with open_regular(directory / name) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()
