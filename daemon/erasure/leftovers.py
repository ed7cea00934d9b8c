"""Remove directories that may hold what was learnt from a person: runs, versions, snapshots."""

import fcntl
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from adaptd.daemon.training.job import LOCK_FILE

_SNAPSHOT = "snapshot-"
_OWNER = 0o755


def remove_run(directory: Path) -> bool:
    """Remove a run's checkpoints, caches and logs. False while a trainer is at work in it."""
    if not directory.exists():
        return True
    with _try_lock(directory / LOCK_FILE) as is_ours:
        if is_ours:
            remove_tree(directory)
    return is_ours


def remove_tree(directory: Path) -> None:
    """Remove a directory, sealed ones too. Safe to repeat."""
    if not directory.exists():
        return
    for folder in (directory, *(p for p in directory.rglob("*") if p.is_dir())):
        if folder.exists() and not folder.is_symlink():
            folder.chmod(_OWNER)
    shutil.rmtree(directory, ignore_errors=False, onerror=_unless_gone)


def lost_snapshots(folder: Path, known: Collection[str], busy: Collection[str]) -> list[Path]:
    """Snapshot directories that the store does not know, but for those of runs at work."""
    found = folder.glob(f"{_SNAPSHOT}*") if folder.is_dir() else ()
    return [
        path
        for path in found
        if path.name not in known and path.name.removeprefix(_SNAPSHOT) not in busy
    ]


@contextmanager
def _try_lock(lock: Path) -> Iterator[bool]:
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except OSError as error:
        if error.errno is not None and not isinstance(error, BlockingIOError):
            raise
        yield False
    finally:
        os.close(descriptor)


def _unless_gone(
    _function: object, _path: object, info: tuple[type, BaseException, object]
) -> None:
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]
