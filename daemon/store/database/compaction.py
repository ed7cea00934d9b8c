"""Rewrites the store into a fresh file beside it: the only way that deleted bytes leave the disk.

DELETE and CHECKPOINT free blocks without clearing them. A fresh file holds only the rows there are.
Most of them are copied while the store is in use; writers wait for the rest, and readers too while
the files are exchanged.
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
    """Seconds in which nobody could write, and in which nobody could read."""

    writers_s: float
    readers_s: float


class Rewriting:
    """One fresh copy of a store, encrypted like the store. A failure removes it."""

    def __init__(self, path: Path, *, key: StoreKey | None) -> None:
        self.path = path
        self._key = key
        self._tables: dict[str, bool] = {}

    def begin(self, cursor: "Connection") -> None:
        """Copy the schema and the tables that only grow. The store stays in use meanwhile.

        Raises:
            StoreError: most likely there is no room for a second file. The store is unchanged.
        """
        with self._removed_on_failure(cursor):
            remove(self.path)
            attach(cursor, self.path, "rewritten", key=self._key)
            _run_statement(cursor, "copy_schema")
            self._tables = dict(_run_statement(cursor, "tables").fetchall())
            for table, grows in self._tables.items():
                if grows:
                    _run_statement(cursor, "copy_table", table)
            _run_statement(cursor, "checkpoint")

    def finish(self, cursor: "Connection") -> None:
        """Copy the rest and close the file. Nobody may write meanwhile. Raises like `begin`."""
        with self._removed_on_failure(cursor):
            for table, grows in self._tables.items():
                _run_statement(cursor, "copy_newer" if grows else "copy_table", table)
                old, fresh = _run_statement(cursor, "count_both", table).fetchall()[0]
                if old != fresh:  # rows were deleted meanwhile
                    _run_statement(cursor, "empty_table", table)
                    _run_statement(cursor, "copy_table", table)
            _run_statement(cursor, "checkpoint")
            _run_statement(cursor, "detach")
            self.path.chmod(0o600)

    @contextmanager
    def _removed_on_failure(self, cursor: "Connection") -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if _run_statement(cursor, "is_attached").fetchall():
                _run_statement(cursor, "detach")
            remove(self.path)
            if not isinstance(error, duckdb.Error):
                raise
            problem = f"the store cannot be rewritten ({str(error).splitlines()[0]})"
            remedy = "Free as much disk as the store takes; it is tried again"
            raise StoreError(str(self.path), problem, remedy) from error


def _run_statement(cursor: "Connection", name: str, table: str = "") -> "Connection":
    return cursor.execute(_SQL[name].replace("a_table", table))


def put_in_place(fresh: Path, store: Path) -> None:
    """Put a fresh file in the place of a closed store's file, which is gone then.

    Raises:
        StoreError: the old file was not closed cleanly: the new one would adopt its log.
    """
    if log_of(store).exists():
        raise StoreError(str(log_of(store)), "the store has an open log", "Restart the daemon")
    fresh.replace(store)
    sync_directory(store.parent)


def beside(store: Path, name: str) -> Path:
    """Return the path of a copy of the store: REWRITTEN, REKEYED or RESTORED."""
    return store.with_name(name.format(store.name))


def remove_half_made(store: Path) -> None:
    """Remove what a killed process left beside a store: spilt pages, and unfinished copies.

    Call it with the store open. Anybody who makes a copy without holding the store then fails, and
    says so, instead of putting the copy over a store in use.
    """
    shutil.rmtree(f"{store}.tmp", ignore_errors=True)
    for name in (REWRITTEN, REKEYED, RESTORED):
        remove(beside(store, name))


@contextmanager
def held(store: Path) -> Iterator[None]:
    """Keep everybody from opening the store meanwhile, by DuckDB's own file lock. Needs no key.

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
    """Remove a copy with every file that DuckDB makes for it."""
    shutil.rmtree(f"{path}.tmp", ignore_errors=True)
    for file in (path, log_of(path)):
        file.unlink(missing_ok=True)


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")
