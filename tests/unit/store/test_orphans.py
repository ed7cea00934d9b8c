"""Feedback without its interaction is counted, whatever comes when, and forgotten with it."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.ingest.orphans import OrphanCount
from adaptd.daemon.store.status_reads import SurfaceStore
from tests.support.event_samples import a_rating, an_interaction
from tests.support.ingesting import Ingesting

NOW = datetime(2026, 11, 1, 13, tzinfo=UTC)


@pytest.fixture
def ingesting() -> Iterator[Ingesting]:
    database = Database.open(":memory:")
    yield Ingesting(database)
    database.close()


async def orphans(ingesting: Ingesting) -> int:
    await OrphanCount(ingesting.database).look()
    counted = (await SurfaceStore(ingesting.database).facts(NOW)).events.orphans
    assert counted == await ingesting.reads.orphan_count()
    return counted


async def test_an_empty_store_has_none(ingesting: Ingesting) -> None:
    assert await orphans(ingesting) == 0


async def test_feedback_waits_until_its_interaction_comes(ingesting: Ingesting) -> None:
    await ingesting.add(a_rating("late"), a_rating("never"), a_rating("there"))
    await ingesting.add(an_interaction(id="there"))
    assert await orphans(ingesting) == 2
    assert await orphans(ingesting) == 2
    await ingesting.add(an_interaction(id="late"), an_interaction(id="other"))
    assert await orphans(ingesting) == 1
    await ingesting.add(a_rating("late"), a_rating("never"))
    assert await orphans(ingesting) == 2


async def test_an_interaction_of_another_tenant_is_not_the_one(ingesting: Ingesting) -> None:
    await ingesting.add(a_rating("i1", tenant="a"), a_rating("i2", tenant="a"), a_rating("i3"))
    assert await orphans(ingesting) == 3
    await ingesting.add(
        an_interaction(id="i1", tenant="b"),
        an_interaction(id="i2", tenant="a"),
        an_interaction(id="i3", tenant="b"),
    )
    assert await orphans(ingesting) == 1


async def test_what_was_erased_no_longer_waits(ingesting: Ingesting) -> None:
    await ingesting.add(a_rating("i1"), a_rating("i2"), a_rating("i3"))
    assert await orphans(ingesting) == 3
    await ingesting.database.write(
        lambda cursor: cursor.execute("DELETE FROM feedback WHERE interaction <> 'i1'")
    )
    assert await orphans(ingesting) == 1
