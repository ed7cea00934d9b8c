"""The one DuckDB connection of the process: every write on one thread, reads on another."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

import duckdb
import pyarrow as pa

from adaptd.daemon.store.database.compaction import (
    REWRITTEN,
    Pause,
    Rewriting,
    beside,
    put_in_place,
    remove_half_made,
)
from adaptd.daemon.store.database.encryption import StoreKey
from adaptd.daemon.store.database.migrate import migrate
from adaptd.daemon.store.database.opening import MEMORY, attach, open_store
from adaptd.daemon.store.database.statements import statements

T = TypeVar("T")
Connection = duckdb.DuckDBPyConnection
_SQL = statements("rewriting")
_INVALID = 70  # the process ends for a person to look at, as on a halt


class Database:
    """An open store. Async callers get threads; a callable gets a cursor and runs to its end.

    DuckDB refuses a second process on the same file, even a reader: that is our fence against two
    daemons on one store.
    """

    def __init__(
        self,
        connection: Connection,
        path: Path | None = None,
        key: StoreKey | None = None,
        *,
        threads: int = 2,
    ) -> None:
        """`path` is None for a store in memory."""
        self._connection = connection
        self._path = path
        self._key = key
        self._threads = threads
        self._long_work = asyncio.Lock()
        self._write_cursor = utc_cursor(connection)
        self._read_cursor = utc_cursor(connection)
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._reader = ThreadPoolExecutor(1, "store-reader")

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        key: StoreKey | None = None,
        memory_limit: str = "1GB",
        threads: int = 2,
    ) -> Self:
        """Open or create the store and bring it to the newest schema.

        `threads` are for work `aside`. Else there is one: a second makes inserts no faster and
        costs them as much processor time again (9.6 instead of 5.3 µs an event).

        Raises:
            SettingsError: a key is missing, wrong, or given for a plain store.
            StoreError: the file is held by another process, unwritable, or of a newer release.
        """
        if path != MEMORY:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        connection = open_store(path, key=key, memory_limit=memory_limit, threads=1)
        if path == MEMORY:
            migrate(connection)
            return cls(connection, threads=threads)
        os.chmod(path, 0o600)  # noqa: PTH101 - same call, one import less to read
        remove_half_made(Path(path))
        migrate(connection)
        return cls(connection, Path(path), key, threads=threads)

    @property
    def is_encrypted(self) -> bool:
        return self._key is not None

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction on the writer thread; it is rolled back where it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, self.write_now, work)

    def write_now(self, work: Callable[[Connection], T]) -> T:
        """The same on the calling thread: for the writer thread itself and for tests."""
        with _ending_where_invalid(), transaction(self._write_cursor) as cursor:
            return work(cursor)

    def checkpoint_soon(self) -> None:
        """Have the log moved into the file before the next write. Nobody waits for it."""
        self._writer.submit(self._checkpoint)

    def _checkpoint(self) -> None:
        with _ending_where_invalid():
            try:
                self._write_cursor.execute(_SQL["checkpoint_store"])
            except duckdb.TransactionException:
                return  # long work is writing just now: DuckDB makes one when the log is long

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on the reader thread, against the last committed state."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._read_now, work)

    def _read_now(self, work: Callable[[Connection], T]) -> T:
        with _ending_where_invalid():
            return work(self._read_cursor)

    async def aside(self, work: Callable[[Connection], T]) -> T:
        """Run long work on a thread and a cursor of its own: neither writes nor reads wait for it.

        Cancelled, it interrupts the work and waits for its end.
        """
        async with self._long_work:
            return await self._aside(work)

    async def _aside(self, work: Callable[[Connection], T]) -> T:
        cursor = utc_cursor(self._connection)
        working = asyncio.get_running_loop().run_in_executor(None, self._spread, work, cursor)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            cursor.interrupt()
            await asyncio.wait([working])
            raise
        finally:
            cursor.close()

    def _spread(self, work: Callable[[Connection], T], cursor: Connection) -> T:
        """With all threads; the setting is the whole instance's, so writes pay for it meanwhile."""
        cursor.execute(f"SET threads = {self._threads:d}")
        try:
            return work(cursor)
        finally:
            cursor.execute("SET threads = 1")

    async def rewrite(self) -> Pause:
        """Write the store into a fresh file and go on with that: what was deleted leaves the disk.

        Needs as much disk again. Writers wait while the last of it is copied, readers only while
        the files are exchanged. A kill at any line leaves the one file or the other, whole.

        Raises:
            StoreError: it cannot be done now; the store is as it was.
        """
        if self._path is None:
            return Pause(0, 0)
        fresh = beside(self._path, REWRITTEN)
        async with self._long_work:
            copy = Rewriting(fresh, key=self._key)
            await self._aside(copy.begin)
            return await self._alone(lambda: self._exchange(copy))

    async def refresh(self) -> bool:
        """Close the file and open it again, so that what DuckDB keeps of it in memory is let go.

        Nobody reads or writes for some 50 ms. False, and nothing is done, beside long work.
        """
        if self._path is None or self._long_work.locked():
            return False
        async with self._long_work:
            await self._alone(lambda: self._reader.submit(self._swap, None).result())
        return True

    async def _alone(self, work: Callable[[], T]) -> T:
        """On the writer thread, and to its end also where the caller is cancelled."""
        working = asyncio.get_running_loop().run_in_executor(self._writer, work)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait([working])
            raise

    def _exchange(self, copy: Rewriting) -> Pause:
        """On the writer thread: nobody writes from here on."""
        began = time.monotonic()
        copy.finish(self._write_cursor)
        readers_s = self._reader.submit(self._swap, copy.path).result()
        return Pause(time.monotonic() - began, readers_s)

    def _swap(self, fresh: Path | None) -> float:
        """On the reader thread, so nobody reads either: close the file, exchange it, open it.

        Closing makes a checkpoint; where there is no room for one, opening reads the log again.
        """
        assert self._path is not None
        began = time.monotonic()
        self._write_cursor.close()
        self._read_cursor.close()
        with _ending_where_not_opened():
            self._connection.execute(_SQL["leave_store"])
            self._connection.execute(_SQL["detach_store"])
        try:
            if fresh is not None:
                put_in_place(fresh, self._path)
        finally:
            with _ending_where_not_opened():
                attach(self._connection, self._path, "store", key=self._key)
            self._connection.execute(_SQL["use_store"])
            self._write_cursor = utc_cursor(self._connection)
            self._read_cursor = utc_cursor(self._connection)
        return time.monotonic() - began

    def close(self) -> None:
        """Finish what was begun, checkpoint and let go of the file."""
        self._writer.shutdown()
        self._reader.shutdown()
        self._connection.close()


def utc_cursor(connection: Connection) -> Connection:
    """A cursor on the store whose times read and print in UTC, whatever the machine's zone."""
    cursor = connection.cursor()
    cursor.execute("USE store")
    cursor.execute("SET TimeZone = 'UTC'")
    return cursor


@contextmanager
def transaction(cursor: Connection) -> Iterator[Connection]:
    cursor.begin()
    try:
        yield cursor
    except BaseException:
        cursor.rollback()
        raise
    cursor.commit()


@contextmanager
def _ending_where_invalid() -> Iterator[None]:
    """After a checkpoint that failed, on a full disk say, DuckDB refuses all work of this process.

    What was committed is safe in the log, and the next process finds it: so make room for that one.
    """
    try:
        yield
    except duckdb.FatalException:
        _end("DuckDB closed itself (is the disk full?)")


@contextmanager
def _ending_where_not_opened() -> Iterator[None]:
    """A store that is closed for a moment and cannot be opened again, for another holds it say."""
    try:
        yield
    except duckdb.Error as error:
        _end(f"it cannot be opened again ({str(error).splitlines()[0]})")


def _end(problem: str) -> NoReturn:
    sys.stderr.write(f"store: {problem}. Restart adaptd\n")
    sys.stderr.flush()
    os._exit(_INVALID)


def rows(cursor: Connection, statement: str, **values: Any) -> list[dict[str, Any]]:
    """Every row of a query as a dict. For small results; use Arrow for large ones."""
    result = cursor.execute(statement, values or None)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def arrow(cursor: Connection, statement: str, **values: Any) -> pa.Table:
    """A query's result as an Arrow table."""
    return cursor.execute(statement, values or None).to_arrow_table()
