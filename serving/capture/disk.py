"""File calls of the spool, one method each. Stands alone as the seam where tests fail a disk."""

import fcntl
import os
from pathlib import Path

from adaptd.daemon.wire.files import replace_file, sync_directory


class Disk:
    """A directory's files. A method that raises OSError has changed nothing for good."""

    def make_directory(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def names(self, directory: Path) -> list[str]:
        return os.listdir(directory)  # noqa: PTH208 - a glob hides errors

    def open(self, path: Path, flags: int) -> int:
        """Open a file that only its owner may read; return its descriptor."""
        return os.open(path, flags, 0o600)

    def lock(self, descriptor: int) -> None:
        """Take a record lock: children that vLLM forks do not inherit it, so it ends with us."""
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def size_bytes(self, path: Path) -> int:
        return path.stat().st_size

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        return os.pread(descriptor, size, offset)

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        """Write at an offset; return the number of bytes written."""
        return os.pwrite(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def cut(self, descriptor: int, size_bytes: int) -> None:
        os.ftruncate(descriptor, size_bytes)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def read_file(self, path: Path) -> bytes:
        return path.read_bytes()

    def replace_file(self, path: Path, content: bytes) -> None:
        replace_file(path, content)

    def sync_directory(self, path: Path) -> None:
        sync_directory(path)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
