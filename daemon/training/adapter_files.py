"""An adapter's directory: its files, its content hash, its seal and its check.

The child writes the directory in the run directory, under a name made of the content hash; the
daemon numbers the adapter and moves the directory to its place for good (D1). Each of the two steps
is one rename, so nobody sees it half done.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from adaptd.daemon.wire.errors import AdaptdError
from adaptd.daemon.wire.files import open_regular, read_regular, sync_directory
from adaptd.daemon.wire.routes import VERSION_NAME

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PROBES = "probes.json"
MANIFEST = "manifest.json"
_STAGED = re.compile(r"^adapter-[0-9a-f]{16}$")
# Settings that decide the adapter's effect together with the weights; the others are provenance.
_EFFECTIVE = (
    "r",
    "lora_alpha",
    "target_modules",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "bias",
)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content and the origin of an adapter. `files` holds the SHA-256 of each other file."""

    content_hash: str
    base_digest: str
    run_id: str
    model: str
    base: str
    parent: str | None
    snapshot_id: str
    snapshot_hash: str
    seed: int
    job: dict[str, Any]
    versions: dict[str, str]
    figures: dict[str, Any]
    files: dict[str, str]


def content_hash(weights: bytes, config: Mapping[str, Any]) -> str:
    """SHA-256 over the weights file and the settings that decide its effect, in hex."""
    effective = {key: config[key] for key in _EFFECTIVE if config.get(key)}
    effective["target_modules"] = sorted(effective.get("target_modules", ()))
    canonical = json.dumps(effective, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(hashlib.sha256(weights).digest() + canonical).hexdigest()


def staged_name(digest: str) -> str:
    return f"adapter-{digest[:16]}"


def seal_adapter(temporary: Path, manifest: Manifest) -> Path:
    """Seal a complete directory and return its new path, beside `temporary`.

    1. Write the manifest.
    2. Put every file on the disk and make it read-only.
    3. Rename the directory to its staged name.

    Safe to repeat with the same content.
    """
    (temporary / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    for file in temporary.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
        file.chmod(0o444)
    sync_directory(temporary)
    target = temporary.parent / staged_name(manifest.content_hash)
    if not target.exists():
        temporary.rename(target)
        sync_directory(target.parent)
    return target


def find_staged(run_directory: Path) -> Path | None:
    """The finished adapter that waits in a run directory, or None."""
    if not run_directory.is_dir():
        return None
    found = sorted(path for path in run_directory.iterdir() if _STAGED.match(path.name))
    return found[0] if found else None


def check_files(directory: Path) -> Manifest:
    """Read every file again and compare it with the manifest.

    Raises:
        AdaptdError: a file is missing or is not what was written.
    """
    try:
        manifest = msgspec.json.decode(read_regular(directory / MANIFEST), type=Manifest)
        found = {name: file_hash(directory / name) for name in manifest.files}
        config = json.loads(read_regular(directory / CONFIG))
        whole = content_hash(read_regular(directory / WEIGHTS), config)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise _damage_error(directory, f"it cannot be read ({error})") from error
    wrong = sorted(name for name, digest in manifest.files.items() if found[name] != digest)
    if wrong or whole != manifest.content_hash:
        raise _damage_error(directory, f"{', '.join(wrong) or WEIGHTS} is not what was written")
    return manifest


def tensor_names(directory: Path) -> list[str]:
    """The names in the weights file's header. The tensors themselves are not read."""
    with open_regular(directory / WEIGHTS) as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return sorted(name for name in header if name != "__metadata__")


def file_hash(path: Path) -> str:
    return hashlib.sha256(read_regular(path)).hexdigest()


def highest_number(adapters: Path, model: str) -> int:
    """The highest version number of an alias among the folders, 0 where there is none (D1)."""
    if not adapters.is_dir():
        return 0
    names = (VERSION_NAME.match(path.name) for path in adapters.iterdir())
    return max(
        (int(name["number"]) for name in names if name and name["alias"] == model), default=0
    )


def place_adapter(staged_directory: Path | None, target: Path) -> None:
    """Move a finished adapter to its name for good. Safe to repeat after the move.

    Raises:
        AdaptdError: it is in neither place, or was damaged.
        OSError: the disk refused; nothing moved.
    """
    if not target.exists():
        if staged_directory is None:
            raise _damage_error(target, "its files are gone")
        check_files(staged_directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        staged_directory.rename(target)
        sync_directory(target.parent)
    check_files(target)
    target.chmod(0o555)


def _damage_error(directory: Path, problem: str) -> AdaptdError:
    return AdaptdError(f"adapter {directory.name}", problem, "Train it again")
