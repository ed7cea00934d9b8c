"""The one DuckDB connection of the process: every write on one thread, reads on another."""

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import duckdb
import pyarrow as pa

from daemon.domain.errors import StoreError
from daemon.store.migrate import migrate

T = TypeVar("T")
Connection = duckdb.DuckDBPyConnection


class Database:
    """An open store. Async callers get threads; a callable gets a cursor and runs to its end.

    DuckDB refuses a second process on the same file, even a reader: that is our fence against two
    daemons on one store.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._write_cursor = utc_cursor(connection)
        self._read_cursor = utc_cursor(connection)
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._reader = ThreadPoolExecutor(1, "store-reader")

    @classmethod
    def open(cls, path: Path | str, *, memory_limit: str = "1GB", threads: int = 2) -> Self:
        """Open or create the store and bring it to the newest schema.

        Raises:
            StoreError: the file is held by another process, unwritable, or of a newer release.
        """
        if path != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {
            "memory_limit": memory_limit,
            "threads": str(threads),
            "checkpoint_threshold": "64MB",
            "autoinstall_known_extensions": "false",
        }
        try:
            connection = duckdb.connect(str(path), config=config)
        except duckdb.Error as error:
            raise _cannot_open(path, error) from error
        if path != ":memory:":
            os.chmod(path, 0o600)  # noqa: PTH101 - same call, one import less to read
        migrate(connection)
        return cls(connection)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction on the writer thread; it is rolled back where it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, self.write_now, work)

    def write_now(self, work: Callable[[Connection], T]) -> T:
        """The same on the calling thread: for the writer thread itself and for tests."""
        with transaction(self._write_cursor) as cursor:
            return work(cursor)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on the reader thread, against the last committed state."""
        return await asyncio.get_running_loop().run_in_executor(
            self._reader, work, self._read_cursor
        )

    def close(self) -> None:
        """Finish what was begun, checkpoint and let go of the file."""
        self._writer.shutdown()
        self._reader.shutdown()
        self._connection.close()


def utc_cursor(connection: Connection) -> Connection:
    """A cursor whose times read and print in UTC, whatever the machine's zone."""
    cursor = connection.cursor()
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


def rows(cursor: Connection, statement: str, **values: Any) -> list[dict[str, Any]]:
    """Every row of a query as a dict. For small results; use Arrow for large ones."""
    result = cursor.execute(statement, values or None)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def arrow(cursor: Connection, statement: str, **values: Any) -> pa.Table:
    """A query's result as an Arrow table."""
    return cursor.execute(statement, values or None).to_arrow_table()


def _cannot_open(path: Path | str, error: duckdb.Error) -> StoreError:
    text = str(error).splitlines()[0]
    if "lock" in text.lower():
        return StoreError(
            str(path), "another process has the store open", "Stop it first; its id is in: " + text
        )
    return StoreError(
        str(path), f"the store cannot be opened ({text})", "Check the path, its rights and the disk"
    )
