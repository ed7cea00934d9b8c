"""Ratings that older releases stored without a scale: kept, marked, counted, never learnt from."""

from collections.abc import Iterator
from datetime import timedelta

import duckdb
import pytest

from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.database.migrate import migrate
from adaptd.daemon.store.ingest.orphans import OrphanCount
from adaptd.daemon.store.status_reads import SurfaceStore
from tests.support.event_samples import NOON, a_correction, a_rating, an_interaction
from tests.support.ingesting import Ingesting

NOW = NOON + timedelta(hours=2)
AN_OLDER_RELEASE = "UPDATE feedback SET \"value\" = 0.5 WHERE id = 'old'"


@pytest.fixture
def ingesting() -> Iterator[Ingesting]:
    database = Database.open(":memory:")
    yield Ingesting(database)
    database.close()


async def store_ratings(ingesting: Ingesting) -> None:
    await ingesting.add(
        an_interaction(id="i1"),
        a_rating("i1", 1, id="old", user="ada"),
        a_rating("i1", 4, id="stars", scale=[1, 5], user="bob"),
        a_rating("i1", 1, id="thumb", user="eve"),
        a_rating("i1", 0.5, id="half", scale=[-1, 1], user="kim", more="unknown"),
        a_correction("i1", id="text"),
    )
    await ingesting.database.write(lambda cursor: cursor.execute(AN_OLDER_RELEASE))


@pytest.mark.parametrize("macro", ["examples_as_of(now())", "judged_examples('1970-01-01', now())"])
async def test_only_a_rating_without_a_scale_is_marked(ingesting: Ingesting, macro: str) -> None:
    await store_ratings(ingesting)

    [row] = await ingesting.ask(f"SELECT ratings FROM {macro}")

    marked = {rating["feedback"]: rating["unscaled"] for rating in row["ratings"]}
    assert marked == {"old": True, "stars": False, "thumb": False, "half": False}


async def test_they_are_counted_anew_once_rows_were_removed(ingesting: Ingesting) -> None:
    await store_ratings(ingesting)
    count, surfaces = OrphanCount(ingesting.database), SurfaceStore(ingesting.database)
    await count.look()
    assert (await surfaces.facts(NOW)).events.unscaled_ratings == 1

    await ingesting.database.write(lambda c: c.execute("DELETE FROM feedback WHERE id = 'old'"))
    await count.look()
    assert (await surfaces.facts(NOW)).events.unscaled_ratings == 0


def test_the_migration_counts_those_that_are_there() -> None:
    with duckdb.connect() as connection:
        migrate(connection)
        connection.execute("DROP TABLE unscaled_ratings")
        connection.execute("DELETE FROM migrations WHERE number = 80")
        connection.execute(
            "INSERT INTO feedback BY NAME SELECT 'f' || i AS id, now() AS \"time\", now() AS ingested_at, "
            "now() AS effective_at, 'i' AS interaction, 0 AS choice, 'user' AS origin, 'rating' AS kind, "
            '[1, -1, 0.5, 0.5, NULL][i]::DOUBLE AS "value", '
            "[NULL, NULL, NULL, '{\"scale\":[0,1]}', NULL][i]::JSON AS extra, "
            "true AS trusted, 'kafka' AS source FROM range(1, 6) t(i)"
        )

        migrate(connection)

        assert connection.execute("FROM unscaled_ratings").fetchall() == [(1,)]
