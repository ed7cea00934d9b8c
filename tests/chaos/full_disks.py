"""Disks that are full for one child: a small one of its own, or files that may not grow."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from tests.chaos.child import IngestChild
from tests.support.broker import ROOT

_SIZE_BYTES = 96 * 2**20
_PIECE = bytes(64 * 1024)
_READY_S = 20
# Root may mount as it is, others where the kernel lets them be root in a namespace of their own.
_WAYS = ((), ("--user", "--map-root-user"))
_MOUNT = 'mount -t tmpfs -o "size=$1,mode=700" adaptd-chaos "$0" && echo ready && exec cat'


class Disk(Protocol):
    """Where a child's store is. `note` says how it is made full, `within` see IngestChild."""

    note: str
    within: Sequence[str]

    def fill(self, child: IngestChild, *, room_bytes: int) -> None:
        """From now on there is room for so much more."""
        ...

    def free(self, child: IngestChild) -> None:
        """There is room again."""
        ...

    def bring_home(self, child: IngestChild) -> None:
        """The child is gone: have its store where everybody sees it."""
        ...

    def close(self) -> None: ...


@contextmanager
def disk_at(home: Path) -> Iterator[Disk]:
    """The nearest to a full disk that this machine permits. `home` is to be the child's."""
    home.mkdir(parents=True, exist_ok=True)
    disk = _best(home)
    try:
        yield disk
    finally:
        disk.close()


def _best(home: Path) -> Disk:
    for way in _WAYS:
        with suppress(OSError, subprocess.TimeoutExpired):
            return SmallDisk(home, way)
    return FileLimit()


class SmallDisk:
    """A tmpfs in a mount namespace of its own: nobody else sees it, and no mount is left behind.

    The namespace lives as long as the process that holds it, and that ends with our end of a pipe.
    Raises OSError where the machine does not let us.
    """

    note = "a disk of its own without a free byte (ENOSPC)"

    def __init__(self, home: Path, way: Sequence[str]) -> None:
        self._holder = subprocess.Popen(
            ["unshare", *way, "--mount", "sh", "-c", _MOUNT, str(home), str(_SIZE_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
        )
        target = str(self._holder.pid)
        as_root = ["--user", "--preserve-credentials"] if way else []
        self.within: Sequence[str] = ["nsenter", "--target", target, *as_root, "--mount", "--wd"]
        self._seen = Path(f"/proc/{target}/root{home}")  # from outside
        self._ballast = self._seen / "ballast"
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def fill(self, child: IngestChild, *, room_bytes: int) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while (left := self._free_bytes() - room_bytes) > 0:
                    file.write(_PIECE[:left])
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self, child: IngestChild) -> None:
        self._ballast.unlink()

    def bring_home(self, child: IngestChild) -> None:
        for file in self._seen.glob(f"{child.store_path.name}*"):
            shutil.copyfile(file, child.home / file.name)

    def close(self) -> None:
        for pipe in (self._holder.stdin, self._holder.stdout):
            if pipe is not None:
                pipe.close()
        self._holder.kill()
        self._holder.wait()

    def _check(self) -> None:
        """Raises OSError where it is not mounted, or a process cannot be put there."""
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            raise OSError(errno.EPERM, "no disk can be mounted here")
        done = subprocess.run(
            [*self.within, sys.executable, "-c", "import tests"],
            timeout=_READY_S,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0 or self._free_bytes() > _SIZE_BYTES:
            raise OSError(errno.EPERM, "no process can be put there")

    def _free_bytes(self) -> int:
        found = os.statvfs(self._seen)
        return found.f_bavail * found.f_frsize


class FileLimit:
    """No file may grow (EFBIG): the next best, and needs no rights."""

    note = "no file may grow (RLIMIT_FSIZE): this machine lets us mount no disk"
    within: Sequence[str] = ()

    def fill(self, child: IngestChild, *, room_bytes: int) -> None:
        if child.is_alive:
            child.limit_files(child.file_bytes() + room_bytes)

    def free(self, child: IngestChild) -> None:
        if child.is_alive:
            child.limit_files(None)

    def bring_home(self, child: IngestChild) -> None:
        """It is there."""

    def close(self) -> None:
        """There is nothing to let go of."""
