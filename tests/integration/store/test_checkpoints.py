"""The writes that go through the store's log, and the moves from the log into the file."""

import asyncio
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from adaptd.daemon.domain.ingest import Decoded, Span
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.encryption import StoreKey
from adaptd.daemon.store.database.opening import ROW_GROUP_ROWS
from adaptd.daemon.store.ingest.sink import EventStore
from tests.support.event_samples import an_interaction
from tests.support.ingesting import EVENTS, Ingesting, chunk, no_events

COUNT = "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM interactions"


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database.open(tmp_path / "store.duckdb")


def log_bytes(tmp_path: Path) -> int:
    log = tmp_path / "store.duckdb.wal"
    return log.stat().st_size if log.exists() else 0


def copy_files(store: Path, target: Path) -> None:
    """Copy the files as a SIGKILL would leave them now."""
    target.mkdir()
    for file in store.glob("store.duckdb*"):
        shutil.copy(file, target / file.name)


def add(cursor: Connection) -> None:
    cursor.execute("INSERT INTO dead_letter_totals VALUES ('made up', 1)")


async def test_a_checkpoint_comes_before_the_next_write(database: Database, tmp_path: Path) -> None:
    await database.write(add)
    before = log_bytes(tmp_path)
    database.checkpoint_soon()
    await database.write(lambda _: None)

    assert before > 0
    assert log_bytes(tmp_path) == 0
    database.close()


async def test_beside_long_work_that_writes_there_is_none_and_no_harm(
    database: Database, tmp_path: Path
) -> None:
    began, end = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(cursor: Connection) -> None:
        cursor.begin()
        add(cursor)
        loop.call_soon_threadsafe(began.set)
        asyncio.run_coroutine_threadsafe(end.wait(), loop).result(5)
        cursor.commit()

    working = asyncio.create_task(database.run_beside(work))
    await began.wait()
    database.checkpoint_soon()
    await database.write(lambda _: None)
    end.set()
    await working

    assert log_bytes(tmp_path) > 0
    database.close()


async def test_events_ask_for_one_after_a_dozen_row_groups(
    database: Database, tmp_path: Path
) -> None:
    ingesting = Ingesting(database)
    await ingesting.pin()
    size = ROW_GROUP_ROWS - 1  # of a transaction that goes through the log
    for number in range(12):
        await ingesting.sink.write(many(number * size, (number + 1) * size))
    assert log_bytes(tmp_path) > 0

    await ingesting.sink.write(many(12 * size, 13 * size))
    await database.write(lambda _: None)

    assert log_bytes(tmp_path) == 0
    database.close()


@pytest.mark.parametrize("key", [None, StoreKey("a key of a store")], ids=["plain", "encrypted"])
async def test_full_row_groups_pass_the_log_by_and_survive_a_kill(
    tmp_path: Path, key: StoreKey | None
) -> None:
    database = Database.open(tmp_path / "store.duckdb", key=key)
    ingesting = Ingesting(database)
    await ingesting.pin()
    await ingesting.sink.write(many(0, ROW_GROUP_ROWS // 2))
    half = log_bytes(tmp_path)
    await ingesting.sink.write(many(ROW_GROUP_ROWS // 2, ROW_GROUP_ROWS * 9 // 2))

    assert log_bytes(tmp_path) < 3 * half, "four row groups have eight times as much"

    copy_files(tmp_path, tmp_path / "killed")
    database.close()
    again = Database.open(tmp_path / "killed" / "store.duckdb", key=key)
    found = await again.read(lambda cursor: rows(cursor, COUNT))
    again.close()
    assert found == [{"n": ROW_GROUP_ROWS * 9 // 2, "ids": ROW_GROUP_ROWS * 9 // 2}]


@pytest.mark.parametrize("key", [None, StoreKey("a key of a store")], ids=["plain", "encrypted"])
async def test_the_file_is_closed_for_a_moment_while_it_is_read_and_written(
    tmp_path: Path, key: StoreKey | None
) -> None:
    database = Database.open(tmp_path / "store.duckdb", key=key)
    ingesting = Ingesting(database)
    await ingesting.pin()
    chunks = [many(number * 100, number * 100 + 100) for number in range(20)]

    async def write() -> None:
        for each in chunks:
            await ingesting.sink.write(each)

    async def look() -> None:
        for _ in range(20):
            await database.read(lambda cursor: rows(cursor, COUNT))

    async def refresh() -> None:
        for _ in range(5):
            assert await database.refresh()

    await asyncio.gather(write(), look(), refresh())

    assert await ingesting.ask(COUNT) == [{"n": 2000, "ids": 2000}]
    database.close()


async def test_it_is_closed_after_so_many_rows(database: Database, tmp_path: Path) -> None:
    """Closing empties the log."""
    ingesting = Ingesting(database)
    await ingesting.pin()
    sink = EventStore(
        database, dedupe_window=timedelta(days=1), clock=ingesting.clock, refresh_rows=150
    )
    await sink.write(many(0, 100))
    before = log_bytes(tmp_path)
    await sink.write(many(100, 200))
    after = log_bytes(tmp_path)
    await sink.write(many(200, 300))

    assert before > 0
    assert after == 0
    assert log_bytes(tmp_path) > 0, "and counted anew"
    database.close()


async def test_beside_long_work_it_stays_open(database: Database) -> None:
    began, end = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(_: Connection) -> None:
        loop.call_soon_threadsafe(began.set)
        asyncio.run_coroutine_threadsafe(end.wait(), loop).result(5)

    working = asyncio.create_task(database.run_beside(work))
    await began.wait()
    assert not await database.refresh()
    end.set()
    await working

    assert await database.refresh()
    database.close()


def many(first: int, end: int) -> Decoded:
    """Events of one span that differ in their id only."""
    one = chunk([an_interaction()], start=first).interactions
    copies = one.take(pa.array(np.zeros(end - first, np.int64)))
    ids = pa.array([f"{number:08d}" for number in range(first, end)])
    table = copies.set_column(0, "id", ids)
    return replace(no_events(Span(EVENTS, first, end)), interactions=table)
