"""Files that other processes read during a write, and files that people name."""

import errno
import io
import os
import stat
import threading
from collections.abc import Generator
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
    """A name of something else than a plain file: a folder, a pipe, a device."""


def open_regular(path: Path, *, follow_links: bool = True) -> io.BufferedReader:
    """Open a regular file for reading. Never blocks on a pipe and never reads a device.

    Every path that a person may name is opened by this function. `follow_links` concerns the last
    name of the path only.

    Raises:
        NotRegularError: the path is a folder, a pipe, a device, or no possible name of a file.
        OSError: the file is missing or cannot be read.
    """
    extra = os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    try:  # the file object owns the descriptor from the first moment: no error can leak it
        file = io.FileIO(path, opener=lambda name, flags: os.open(name, flags | extra))
    except IsADirectoryError as error:
        raise _refuse_kind(path, stat.S_IFDIR) from error
    except ValueError as error:  # a null byte, or letters that the file system cannot write
        raise NotRegularError(errno.EINVAL, "it is not a file name", repr(path)) from error
    kind = stat.S_IFMT(os.fstat(file.fileno()).st_mode)
    if kind != stat.S_IFREG:
        file.close()
        raise _refuse_kind(path, kind)
    return io.BufferedReader(file)


def read_regular(path: Path) -> bytes:
    """Read a regular file. Raises as `open_regular` does."""
    with open_regular(path) as file:
        return file.read()


def shown_path(path: Path | str) -> str:
    """Write a path as one printable line of UTF-8: other letters become codes."""
    text = str(path)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _refuse_kind(path: Path, kind: int) -> NotRegularError:
    what = _KINDS.get(kind, "something else")
    return NotRegularError(errno.EINVAL, f"it is {what}, not a regular file", str(path))


def replace_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace a file in one step: readers see the old or the new one, after a power cut too.

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
def private_files() -> Generator[None, None, None]:
    """Make files for this process' user only, within the block.

    For commands: the mask holds for all threads of the process.
    """
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
