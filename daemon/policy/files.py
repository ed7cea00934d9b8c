"""Reads of files inside the policy folder, and of no other file (invariant 9)."""

from pathlib import Path, PurePosixPath

from adaptd.daemon.wire.errors import PolicyError
from adaptd.daemon.wire.files import NotRegularError, open_regular, shown_path

_SUFFIXES = (".yaml", ".yml")


class Unreadable(Exception):  # noqa: N818 - it says what a file is, and is always caught here
    """A file that is not read. Two arguments: the problem and the remedy."""


def inside(folder: Path, name: str) -> Path:
    """Resolve a relative name to a path inside the folder, links followed.

    Raises:
        Unreadable: the name leads out of the folder.
    """
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or "\0" in name:
        raise Unreadable(f"{name!r} leads out of the policy folder", "Give a path inside it")
    return resolved_inside(folder, folder / name)


def resolved_inside(folder: Path, path: Path) -> Path:
    """Follow the links of a path. Raises Unreadable where they lead out of the folder."""
    try:
        found = path.resolve()
        if found.is_relative_to(folder.resolve()):
            return found
    except ValueError as error:  # a null byte, or letters that the file system cannot write
        raise Unreadable("it is not a file name", "Give the name of a file") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise Unreadable("it cannot be followed", "Give a file, not a circle of links") from error
    raise Unreadable("it is a link that leads out of the policy folder", "Copy the file in")


def read_regular(path: Path, *, limit_bytes: int) -> bytes:
    """Read a regular file. Never blocks on a pipe and never reads a device.

    Raises:
        Unreadable: the file is missing, not regular, or larger than the limit.
    """
    try:
        with open_regular(path, follow_links=False) as file:
            content = file.read(limit_bytes + 1)
    except NotRegularError as error:
        raise Unreadable(str(error.strerror), "Give a plain file") from error
    except OSError as error:
        reason = (error.strerror or "error").lower()
        raise Unreadable(
            f"it cannot be read ({reason})", "Check the name and the rights"
        ) from error
    if len(content) > limit_bytes:
        raise Unreadable(f"it has more than {limit_bytes:,} bytes", "Make it smaller")
    return content


def policy_paths(folder: Path) -> list[Path]:
    """List the paths in a folder that are named like policies; none in a missing folder.

    Raises:
        PolicyError: the folder cannot be listed.
    """
    try:
        found = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a file name"
        raise PolicyError(
            shown_path(folder), f"it cannot be listed ({reason})", "Check the name and the rights"
        ) from error
    return [path for path in found if path.suffix in _SUFFIXES and not path.name.startswith(".")]
