"""Adapter versions: numbers rise for ever, states move legally."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adaptd.daemon.domain.states import AdapterState
from adaptd.daemon.store.database.database import Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.lifecycle.adapters import AdapterRow, AdapterStore, Origin
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.wire.errors import RefusedError

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    opened = Database.open(":memory:")
    yield opened
    opened.close()


@pytest.fixture
def adapters(database: Database) -> AdapterStore:
    return AdapterStore(database)


async def a_version(
    adapters: AdapterStore, run_id: str | None = None, found: int = 0, model: str = "support"
) -> AdapterRow:
    origin = Origin(content_hash="1f00ba42" * 8, base_digest="b" * 64, run_id=run_id)
    folder = Path("/home/adapters")
    return await adapters.add(model, origin, folder=folder, found=found, actor="test", now=NOW)


async def test_a_new_version_is_a_numbered_candidate(adapters: AdapterStore) -> None:
    row = await a_version(adapters)

    assert (row.name, row.number, row.state) == ("support@v1-1f00ba42", 1, AdapterState.CANDIDATE)
    assert row.path == "/home/adapters/support@v1-1f00ba42"
    assert await adapters.get(row.name) == row


async def test_a_number_is_above_anything_found(adapters: AdapterStore) -> None:
    assert (await a_version(adapters, found=6)).number == 7
    assert (await a_version(adapters)).number == 8
    adapters.raise_floor("support", 20)
    adapters.raise_floor("support", 12)
    assert await adapters.next_number("support", found=15) == 21
    assert (await a_version(adapters)).number == 21
    assert (await a_version(adapters, model="sales")).number == 1


async def test_a_number_seen_by_one_part_binds_all(
    adapters: AdapterStore, database: Database
) -> None:
    AdapterStore(database).raise_floor("support", 41)
    assert (await a_version(adapters)).number == 42


async def test_a_run_gets_one_version_however_often_it_is_stored(
    adapters: AdapterStore, database: Database
) -> None:
    runs = RunStore(database)
    run = await runs.create(
        "support", policy_version=1, trigger={}, start_from=None, actor="test", now=NOW
    )

    first = await a_version(adapters, run.run_id)
    again = await a_version(adapters, run.run_id, found=9)

    assert again == first
    assert (await runs.get(run.run_id)).adapter == first.name
    assert await adapters.list() == [first]


async def test_a_move_is_recorded_with_its_evidence(
    adapters: AdapterStore, database: Database
) -> None:
    row = await a_version(adapters)
    for _ in range(2):
        moved = await adapters.move(
            row.name,
            AdapterState.RETIRED,
            actor="gate",
            reason="worse",
            evidence={"n": 5},
            now=NOW,
        )
        assert moved.state is AdapterState.RETIRED

    statement = statements("transitions")["transitions_of"]
    found = await database.read(lambda c: rows(c, statement, kind="adapter", subject=row.name))
    assert [(move["from_state"], move["to_state"]) for move in found] == [
        (None, "candidate"),
        ("candidate", "retired"),
    ]


async def test_an_illegal_move_is_refused(adapters: AdapterStore) -> None:
    row = await a_version(adapters)
    with pytest.raises(RefusedError, match="cannot become last_good"):
        await adapters.move(row.name, AdapterState.LAST_GOOD, actor="test", reason="no", now=NOW)
    assert (await adapters.get(row.name)).state is AdapterState.CANDIDATE


async def test_an_unknown_version_is_refused(adapters: AdapterStore) -> None:
    with pytest.raises(RefusedError, match="there is no such version"):
        await adapters.get("support@v9-00000000")
