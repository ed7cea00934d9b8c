"""The process's one DuckDB connection: every write on one thread, every read on another."""

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
    """An open store. Async callers hand over a callable that gets a cursor and runs on a thread.

    DuckDB refuses a second process on the same file, even a reader: that is the fence against two
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
        self._long_work = asyncio.Lock()  # one at a time: a backup, a seal, a rewrite
        self._write_cursor = utc_cursor(connection)
        self._read_cursor = utc_cursor(connection)
        # One thread each: writes keep their order, and reads never wait for a long transaction.
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

        `threads` are for work that runs `beside`. All else has one: a second makes inserts no
        faster and doubles their processor time (9.6 instead of 5.3 µs an event).

        Raises:
            SettingsError: a key is missing, wrong, or given for a plain store.
            StoreError: the file is held by another process, unwritable, or of a newer release.
        """
        # With one thread; work that runs beside raises the number for its time.
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
        """Run `work` in one transaction on the writer thread; an exception rolls it back."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, self.write_now, work)

    def write_now(self, work: Callable[[Connection], T]) -> T:
        """Do what `write` does, on the calling thread: the writer thread's own, or a test's."""
        with _end_process_when_invalid(), transaction(self._write_cursor) as cursor:
            return work(cursor)

    def checkpoint_soon(self) -> None:
        """Move the log into the file before the next write. The caller does not wait."""
        self._writer.submit(self._make_checkpoint)

    def _make_checkpoint(self) -> None:
        with _end_process_when_invalid():
            try:
                self._write_cursor.execute(_SQL["checkpoint_store"])
            except duckdb.TransactionException:
                return  # long work writes now; DuckDB itself makes one when the log is long

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on the reader thread, against the last committed state."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._read_now, work)

    def _read_now(self, work: Callable[[Connection], T]) -> T:
        with _end_process_when_invalid():
            return work(self._read_cursor)

    async def run_beside(self, work: Callable[[Connection], T]) -> T:
        """Run long work on its own thread and cursor: neither writes nor reads wait for it.

        A cancelled call interrupts the work and waits for its end.
        """
        async with self._long_work:
            return await self._run_on_own_cursor(work)

    async def _run_on_own_cursor(self, work: Callable[[Connection], T]) -> T:
        cursor = utc_cursor(self._connection)
        working = asyncio.get_running_loop().run_in_executor(
            None, self._run_with_all_threads, work, cursor
        )
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            cursor.interrupt()
            await asyncio.wait([working])  # a cursor must not be closed under a running statement
            raise
        finally:
            cursor.close()

    def _run_with_all_threads(self, work: Callable[[Connection], T], cursor: Connection) -> T:
        # The setting is the whole instance's, so writes cost more processor time meanwhile.
        cursor.execute(f"SET threads = {self._threads:d}")
        try:
            return work(cursor)
        finally:
            cursor.execute("SET threads = 1")

    async def rewrite(self) -> Pause:
        """Rewrite the store into a fresh file and go on with it: deleted rows leave the disk.

        Needs as much disk again. Writers wait while the last rows are copied, readers only while
        the files are exchanged. A kill at any line leaves the old file or the new one, whole.

        Raises:
            StoreError: it cannot be done now; the store is unchanged.
        """
        if self._path is None:
            return Pause(0, 0)
        fresh = beside(self._path, REWRITTEN)
        async with self._long_work:
            copy = Rewriting(fresh, key=self._key)
            await self._run_on_own_cursor(copy.begin)
            return await self._run_exclusively(lambda: self._exchange_files(copy))

    async def refresh(self) -> bool:
        """Close the file and open it again, which frees the memory that DuckDB keeps for it.

        Nobody reads or writes for some 50 ms. False, and nothing is done, while long work runs.
        """
        if self._path is None or self._long_work.locked():
            return False
        async with self._long_work:
            await self._run_exclusively(lambda: self._reader.submit(self._swap_file, None).result())
        return True

    async def _run_exclusively(self, work: Callable[[], T]) -> T:
        """Run work on the writer thread to its end, even where the caller is cancelled."""
        working = asyncio.get_running_loop().run_in_executor(self._writer, work)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait([working])
            raise

    def _exchange_files(self, copy: Rewriting) -> Pause:
        began = time.monotonic()  # this is the writer thread: nobody writes from here on
        copy.finish(self._write_cursor)
        readers_s = self._reader.submit(self._swap_file, copy.path).result()
        return Pause(time.monotonic() - began, readers_s)

    def _swap_file(self, fresh: Path | None) -> float:
        """Close the file, exchange it for `fresh` where there is one, open it; return the seconds.

        The writer waits and this is the reader thread: nobody writes or reads. Closing makes a
        checkpoint; where there is no room for one, opening reads the log again.
        """
        assert self._path is not None  # the callers have checked
        began = time.monotonic()
        self._write_cursor.close()
        self._read_cursor.close()
        with _end_process_when_not_opened():
            self._connection.execute(_SQL["leave_store"])
            self._connection.execute(_SQL["detach_store"])
        try:
            if fresh is not None:
                put_in_place(fresh, self._path)
        finally:
            with _end_process_when_not_opened():
                attach(self._connection, self._path, "store", key=self._key)
            self._connection.execute(_SQL["use_store"])
            self._write_cursor = utc_cursor(self._connection)
            self._read_cursor = utc_cursor(self._connection)
        return time.monotonic() - began

    def close(self) -> None:
        """Finish queued work, checkpoint and release the file."""
        self._writer.shutdown()
        self._reader.shutdown()
        self._connection.close()


def utc_cursor(connection: Connection) -> Connection:
    """Return a cursor on the store that reads and prints times in UTC in every time zone."""
    cursor = connection.cursor()
    cursor.execute("USE store")  # per cursor, like the time zone
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
    cursor.commit()  # outside the `try`: DuckDB itself rolls back a commit that fails


@contextmanager
def _end_process_when_invalid() -> Iterator[None]:
    """End the process where DuckDB refuses all further work, e.g. after a failed checkpoint.

    Committed rows are safe in the log, and the next process finds them.
    """
    try:
        yield
    except duckdb.FatalException:
        _end_process("DuckDB closed itself (is the disk full?)")


@contextmanager
def _end_process_when_not_opened() -> Iterator[None]:
    """End the process where the store, closed to refresh it, cannot be opened again.

    Another process may have taken the lock meanwhile.
    """
    try:
        yield
    except duckdb.Error as error:
        _end_process(f"it cannot be opened again ({str(error).splitlines()[0]})")


def _end_process(problem: str) -> NoReturn:
    sys.stderr.write(f"store: {problem}. Restart adaptd\n")
    sys.stderr.flush()
    os._exit(_INVALID)  # at once: other threads may hang in DuckDB


@contextmanager
def registered(cursor: Connection, name: str, table: pa.Table) -> Iterator[None]:
    """Let statements of `cursor` read an Arrow table under a name."""
    cursor.register(name, table)
    try:
        yield
    finally:
        cursor.unregister(name)


def rows(cursor: Connection, statement: str, **values: Any) -> list[dict[str, Any]]:
    """Return every row of a query as a dict. For small results; use `arrow` for large ones."""
    result = cursor.execute(statement, values or None)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def arrow(cursor: Connection, statement: str, **values: Any) -> pa.Table:
    """Return a query's result as an Arrow table."""
    return cursor.execute(statement, values or None).to_arrow_table()
