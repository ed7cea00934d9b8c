"""Files that other processes read while we write them, and files that people name."""

import errno
import io
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class NotRegularError(OSError):
    """A name that stands for something else than a plain file: a folder, a pipe, a device."""


def open_regular(path: Path, *, follow_links: bool = True) -> io.BufferedReader:
    """Open a regular file for reading. Never blocks on a pipe and never reads a device.

    A path that a person may name is opened through here. `follow_links` concerns the last name of
    the path only.

    Raises:
        NotRegularError: it is a folder, a pipe, a device, or no name that a file can have.
        OSError: it is missing or cannot be read.
    """
    extra = os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    try:  # the file object owns the descriptor from the first moment: no error can leak it
        file = io.FileIO(path, opener=lambda name, flags: os.open(name, flags | extra))
    except IsADirectoryError as error:
        raise _not_regular(path, stat.S_IFDIR) from error
    except ValueError as error:  # a null byte, or letters that the file system cannot write
        raise NotRegularError(errno.EINVAL, "it is not a file name", repr(path)) from error
    kind = stat.S_IFMT(os.fstat(file.fileno()).st_mode)
    if kind != stat.S_IFREG:
        file.close()
        raise _not_regular(path, kind)
    return io.BufferedReader(file)


def read_regular(path: Path) -> bytes:
    """The content of a regular file. Raises as `open_regular` does."""
    with open_regular(path) as file:
        return file.read()


def shown_path(path: Path | str) -> str:
    """A path as one printable line of UTF-8: letters that are neither become codes."""
    text = str(path)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _not_regular(path: Path, kind: int) -> NotRegularError:
    what = _KINDS.get(kind, "something else")
    return NotRegularError(errno.EINVAL, f"it is {what}, not a regular file", str(path))


def replace_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file in one step that survives a power cut: readers see the old one or the new one.

    Raises:
        OSError: nothing was changed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def private_files() -> Iterator[None]:
    """What this process makes meanwhile is for its user only. For commands: all threads do so."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
