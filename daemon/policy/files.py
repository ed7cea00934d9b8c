"""Reads of files inside the policy folder, and of no other file (invariant 9)."""

import os
import stat
from pathlib import Path, PurePosixPath


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
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise Unreadable("it cannot be followed", "Give a file, not a circle of links") from error
    raise Unreadable("it is a link that leads out of the policy folder", "Copy the file in")


def read_regular(path: Path, *, limit_bytes: int) -> bytes:
    """Read a regular file. Never blocks on a pipe and never reads a device.

    Raises:
        Unreadable: the file is missing, not regular, or larger than the limit.
    """
    try:
        # O_NONBLOCK: a pipe without a writer would block. O_NOFOLLOW: links were followed before.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        reason = (error.strerror or "error").lower()
        raise Unreadable(
            f"it cannot be read ({reason})", "Check the name and the rights"
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)  # of the open file: the name may be replaced meanwhile
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable("it is not a regular file", "Give a plain file")
        if found.st_size > limit_bytes:
            problem = f"it has {found.st_size:,} bytes, more than {limit_bytes:,}"
            raise Unreadable(problem, "Make it smaller")
        return file.read(limit_bytes)
