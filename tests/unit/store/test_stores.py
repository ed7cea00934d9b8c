"""Stores of one process share what they keep in memory, and words that SQL and Python both use."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adaptd.daemon.domain.erasures import Person
from adaptd.daemon.domain.states import RolloutState, RunState
from adaptd.daemon.store.database.database import Database, rows
from adaptd.daemon.store.lifecycle.adapters import Origin
from adaptd.daemon.store.lifecycle.rollouts import ACTIVE_STATES
from adaptd.daemon.store.lifecycle.runs import FINAL_RUNS
from adaptd.daemon.store.stores import Stores
from tests.support.event_samples import an_interaction
from tests.support.ingesting import EVENTS, Ingesting, chunk
from tests.support.stores import stores_over

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
WHO = {"actor": "test", "reason": "asked", "now": NOW}


@pytest.fixture
def database() -> Iterator[Database]:
    opened = Database.open(":memory:")
    yield opened
    opened.close()


@pytest.fixture
def stores(database: Database) -> Stores:
    return stores_over(database, clock=lambda: NOW)


async def test_a_version_number_seen_by_one_part_binds_the_one_that_numbers(stores: Stores) -> None:
    stores.adapters.raise_floor("support", 41)
    origin = Origin(content_hash="1f00ba42" * 8, base_digest="b" * 64)
    row = await stores.adapters.add(
        "support", origin, folder=Path("/adapters"), actor="test", now=NOW
    )
    assert row.number == 42


async def test_an_erasure_bars_the_next_chunk_of_a_sink_that_had_no_tombstones(
    stores: Stores, database: Database
) -> None:
    ingesting = Ingesting(database, NOW)
    ingesting.sink = stores.events
    await ingesting.add(an_interaction(user="ada"))
    until = NOW + timedelta(days=1)

    await stores.erasures.add(Person("ada"), **WHO, barred_until=until)
    written = await stores.events.write(chunk([an_interaction(user="ada")], start=1))
    assert (written.interactions, len(written.barred)) == (0, 1)

    await stores.erasures.lift(Person("ada"), **WHO)
    written = await stores.events.write(chunk([an_interaction(user="ada")], start=2))
    assert (written.interactions, written.next_offsets[EVENTS]) == (1, 3)


@pytest.mark.parametrize(
    ("kind", "value", "negative"),
    [
        ("correction", None, True),
        ("rating", -0.1, True),
        ("rating", 0.0, False),
        ("rating", 1.0, False),
        ("metric", -1.0, False),
        ("preference", None, False),
    ],
)
def test_negative_is_a_correction_or_a_rating_below_zero(
    database: Database, kind: str, value: float | None, negative: bool
) -> None:
    asked = 'SELECT coalesce(is_negative($kind, $value::DOUBLE), false) AS "negative"'
    found = database.write_now(lambda c: rows(c, asked, kind=kind, value=value))
    assert found == [{"negative": negative}]


def test_every_state_is_final_active_or_live() -> None:
    assert set(FINAL_RUNS) == {state.value for state in RunState if state.is_final}
    final = {state.value for state in RolloutState if state.is_final}
    assert set(ACTIVE_STATES) | final | {"live"} == {state.value for state in RolloutState}
    assert not set(ACTIVE_STATES) & (final | {"live"})
