"""The key the store is encrypted with, and whether a file is. The key is never shown or logged."""

import os
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adaptd.daemon.wire.errors import SettingsError, StoreError
from adaptd.daemon.wire.files import open_regular

KEY_VARIABLE = "ADAPTD_STORE_KEY"
_PATH_SETTING = "store_key_path"
_COMMAND_SETTING = "store_key_command"
_SHORTEST, _LONGEST = 32, 1024  # letters; DuckDB hashes the key once, so a short one can be guessed
_COMMAND_LIMIT_S = 30
_HEADER = slice(8, 12)  # after the checksum; then 8 bytes of version, then the flags
_FLAGS = 20


@dataclass(frozen=True)
class StoreKey:
    """A key as it is handed to DuckDB. Printing it shows nothing."""

    secret: str = field(repr=False)


def read_key(
    *,
    path: Path | None,
    command: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> StoreKey | None:
    """The key from a file, from what a command prints, or from ADAPTD_STORE_KEY.

    None where none is given: the store is plain then.

    Raises:
        SettingsError: more than one is given, or the one given cannot be used.
    """
    variable = (os.environ if environment is None else environment).get(KEY_VARIABLE)
    given = [name for name, value in _sources(path, command, variable).items() if value]
    if len(given) > 1:
        raise SettingsError("store key", f"it is given twice: {' and '.join(given)}", "Give one")
    if path is not None:
        return key_of_file(path, name=_PATH_SETTING)
    if command:
        return _checked(_printed(command), where=_COMMAND_SETTING)
    return _checked(variable, where=KEY_VARIABLE) if variable else None


def key_of_file(path: Path, *, name: str) -> StoreKey:
    """The key in a file that only its owner may read. `name` is what the operator called it by.

    Raises:
        SettingsError: others may read it, it cannot be read, or holds no key.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_LONGEST + 2)
    except OSError as error:
        remedy = "Give a file that holds the key"
        raise SettingsError(name, f"{path} cannot be read ({error.strerror})", remedy) from error
    if stat.S_ISREG(mode) and mode & 0o077:
        raise SettingsError(name, f"others may read {path}", f"Run: chmod 600 {path}")
    return _checked(text.decode(errors="replace"), where=name)


def is_store(path: Path) -> bool:
    """Whether a file says that it is DuckDB's."""
    return _header(path)[_HEADER] == b"DUCK"


def is_encrypted(path: Path) -> bool:
    """What a store's file says of itself; False where there is none yet."""
    header = _header(path)
    return header[_HEADER] == b"DUCK" and len(header) > _FLAGS and bool(header[_FLAGS] & 1)


def _header(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(_FLAGS + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        problem = f"it cannot be read ({error.strerror})"
        raise StoreError(
            str(path), problem, "Move away what lies there, or see its rights"
        ) from error


def _sources(path: Path | None, command: Sequence[str], variable: str | None) -> dict[str, object]:
    return {_PATH_SETTING: path, _COMMAND_SETTING: command, KEY_VARIABLE: variable}


def _printed(command: Sequence[str]) -> str:
    """What it writes on stdout; its stderr goes to ours, and neither into a message."""
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=_COMMAND_LIMIT_S,
            check=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        problem = f"{command[0]!r} gave no key ({_reason(error)})"
        raise SettingsError(_COMMAND_SETTING, problem, "Run it by hand and see") from error
    return done.stdout.decode(errors="replace")


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer in {_COMMAND_LIMIT_S} s"
    return getattr(error, "strerror", None) or type(error).__name__


def _checked(text: str, *, where: str) -> StoreKey:
    secret = text.strip()
    if not _SHORTEST <= len(secret) <= _LONGEST or not secret.isprintable():
        problem = f"it holds no key of {_SHORTEST} to {_LONGEST} printable letters on one line"
        raise SettingsError(where, problem, "Make one: openssl rand -base64 32")
    return StoreKey(secret)
