"""Writes the store anew beside itself: the only way that deleted bytes leave the disk.

DELETE and CHECKPOINT free blocks without clearing them. A fresh file holds only what is there. Most
of it is copied while the store is in use; the rest, and the exchange of the files, while it waits.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import duckdb

from adaptd.daemon.store.database.encryption import StoreKey
from adaptd.daemon.store.database.opening import attach
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.wire.errors import RefusedError, StoreError
from adaptd.daemon.wire.files import sync_directory

if TYPE_CHECKING:
    from adaptd.daemon.store.database.database import Connection

REWRITTEN, REKEYED, RESTORED = "{}.rewritten", ".{}.rekey", ".{}.restoring"
_SQL = statements("rewriting")


class Pause(NamedTuple):
    """How long nobody could write, and how long nobody could read."""

    writers_s: float
    readers_s: float


class Rewriting:
    """One fresh copy of a store, encrypted as the store is. A failure throws it away."""

    def __init__(self, path: Path, *, key: StoreKey | None) -> None:
        self.path = path
        self._key = key
        self._tables: dict[str, bool] = {}

    def begin(self, cursor: "Connection") -> None:
        """Copy the schema and the tables that only grow. The store stays in use meanwhile.

        Raises:
            StoreError: there is no room for a second file, most likely. The store is as it was.
        """
        with self._thrown_away(cursor):
            remove(self.path)
            attach(cursor, self.path, "rewritten", key=self._key)
            _run(cursor, "copy_schema")
            self._tables = dict(_run(cursor, "tables").fetchall())
            for table, grows in self._tables.items():
                if grows:
                    _run(cursor, "copy_table", table)
            _run(cursor, "checkpoint")

    def finish(self, cursor: "Connection") -> None:
        """Copy what is left and close the file. Nobody may write meanwhile. Raises as `begin`."""
        with self._thrown_away(cursor):
            for table, grows in self._tables.items():
                _run(cursor, "copy_newer" if grows else "copy_table", table)
                old, fresh = _run(cursor, "count_both", table).fetchall()[0]
                if old != fresh:  # something was deleted meanwhile
                    _run(cursor, "empty_table", table)
                    _run(cursor, "copy_table", table)
            _run(cursor, "checkpoint")
            _run(cursor, "detach")
            self.path.chmod(0o600)

    @contextmanager
    def _thrown_away(self, cursor: "Connection") -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if _run(cursor, "is_attached").fetchall():
                _run(cursor, "detach")
            remove(self.path)
            if not isinstance(error, duckdb.Error):
                raise
            problem = f"the store cannot be rewritten ({str(error).splitlines()[0]})"
            remedy = "Free as much disk as the store takes; it is tried again"
            raise StoreError(str(self.path), problem, remedy) from error


def _run(cursor: "Connection", name: str, table: str = "") -> "Connection":
    return cursor.execute(_SQL[name].replace("a_table", table))


def put_in_place(fresh: Path, store: Path) -> None:
    """Exchange the files of a closed store. What was there before is gone.

    Raises:
        StoreError: the old file was not closed cleanly, so the new one would take over its log.
    """
    if log_of(store).exists():
        raise StoreError(str(log_of(store)), "the store has an open log", "Restart the daemon")
    fresh.replace(store)
    sync_directory(store.parent)


def beside(store: Path, name: str) -> Path:
    """Where a copy of the store is made: REWRITTEN, REKEYED or RESTORED."""
    return store.with_name(name.format(store.name))


def remove_half_made(store: Path) -> None:
    """What a killed process left beside a store: spilt pages, copies that never took its place.

    Call it with the store open: whoever makes one without holding the store then fails, and says
    so, instead of putting it over a store that somebody uses.
    """
    shutil.rmtree(f"{store}.tmp", ignore_errors=True)
    for name in (REWRITTEN, REKEYED, RESTORED):
        remove(beside(store, name))


@contextmanager
def held(store: Path) -> Iterator[None]:
    """Nobody opens the store meanwhile: DuckDB locks its file so. No key is needed.

    Raises:
        RefusedError: another process has it open. OSError: it cannot be opened.
    """
    with store.open("rb+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            problem = "another process has the store open"
            raise RefusedError(str(store), problem, "Stop the daemon first") from error
        yield


def remove(path: Path) -> None:
    """A copy with all that DuckDB makes for it."""
    shutil.rmtree(f"{path}.tmp", ignore_errors=True)
    for file in (path, log_of(path)):
        file.unlink(missing_ok=True)


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")
