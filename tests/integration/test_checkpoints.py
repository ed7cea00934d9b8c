"""When the store's log is moved into its file."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from daemon.domain.ingest import Decoded, Span
from daemon.store.database import Connection, Database
from tests.event_samples import an_interaction
from tests.ingesting import EVENTS, Ingesting, chunk, no_events

ROW_GROUP = 122_880


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database.open(tmp_path / "store.duckdb")


def log_bytes(tmp_path: Path) -> int:
    log = tmp_path / "store.duckdb.wal"
    return log.stat().st_size if log.exists() else 0


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

    working = asyncio.create_task(database.aside(work))
    await began.wait()
    database.checkpoint_soon()
    await database.write(lambda _: None)
    end.set()
    await working

    assert log_bytes(tmp_path) > 0
    database.close()


async def test_events_ask_for_one_before_they_fill_a_row_group(
    database: Database, tmp_path: Path
) -> None:
    """One that is filled up later is written twice; see EventStore."""
    ingesting = Ingesting(database)
    await ingesting.pin()
    await ingesting.sink.write(many(0, ROW_GROUP // 2))
    assert log_bytes(tmp_path) > 0

    await ingesting.sink.write(many(ROW_GROUP // 2, ROW_GROUP * 9 // 10))
    await database.write(lambda _: None)

    assert log_bytes(tmp_path) == 0
    database.close()


def many(first: int, end: int) -> Decoded:
    """Events that differ in their id only, of one span."""
    one = chunk([an_interaction()], start=first).interactions
    copies = one.take(pa.array(np.zeros(end - first, np.int64)))
    ids = pa.array([f"{number:08d}" for number in range(first, end)])
    table = copies.set_column(0, "id", ids)
    return replace(no_events(Span(EVENTS, first, end)), interactions=table)
