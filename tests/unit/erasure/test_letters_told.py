"""A report names where a person's dead letters and redriven events lie in Kafka, to the offset."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adaptd.consumers.decoding.json_events import UnreadableError
from adaptd.consumers.rereading.redrive import Redriver
from adaptd.daemon.domain.dead_letters import LetterChoice
from adaptd.daemon.domain.erasures import Person
from adaptd.daemon.erasure.outside import beyond_reach
from adaptd.daemon.settings import Settings
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.ingest.dead_letters import DeadLetterStore
from adaptd.daemon.wiring.erasing import build_forgetting
from tests.support.erasure_world import SECRET, ErasureWorld, NoRollouts
from tests.support.event_samples import an_interaction
from tests.support.ingesting import chunk

ADA = Person("ada")
REFUSED = "adaptd.interaction/9"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ErasureWorld]:
    database = Database.open(":memory:")
    yield ErasureWorld(tmp_path, database)
    database.close()


def a_refused(user: str | None, **fields: Any) -> dict[str, Any]:
    return an_interaction(user=user, schema=REFUSED, **fields)


async def redrive(world: ErasureWorld, position: int) -> None:
    """As if a newer release could read the letter."""
    mend = (
        "UPDATE dead_letters SET bytes = encode(replace(decode(bytes), 'on/9', 'on/1'))"
        " WHERE position = $position"
    )
    await world.database.write(lambda c: c.execute(mend, {"position": position}))
    letters = DeadLetterStore(world.database, clock=world.ingesting.clock)
    redriver = Redriver(
        world.ingesting.sink, letters, kinds={}, unsigned_sources=frozenset({"user"})
    )
    choice = LetterChoice(ids=[f"kafka/events/0/{position}/0"])
    ((result,), _) = await redriver.redrive(choice)
    assert result.result == "stored"


async def test_letters_of_the_person_are_told_by_their_offsets(world: ErasureWorld) -> None:
    batch = {"batch": [a_refused("ada"), a_refused("ada"), a_refused("eve")]}
    await world.ingesting.add(
        a_refused("ada"), a_refused("eve"), a_refused("ada"), batch, b"cut of ada", b"cut of eve"
    )

    report = (await world.erase(ADA)).report

    assert report["letters"] == [
        {
            "topic": "events",
            "partition": 0,
            "first_offset": 0,
            "last_offset": 4,
            "records": 4,
            "ranges": 2,
            "offsets": [[0, 0], [2, 4]],
        }
    ]
    assert report["unread_letters"] == []
    told = next(place for place in report["outside"] if place["where"] == "Kafka events/0")
    assert told["what"].endswith("lie at offsets 0, 2 to 4")
    assert '"offset":5' in told["remedy"]


async def test_redriven_events_are_told_where_they_were_refused(world: ErasureWorld) -> None:
    """Also those by nobody, with a short id: their letter does not name the person."""
    await world.ingesting.add(
        an_interaction(user="ada", conversation="t"),
        a_refused("eve"),
        a_refused(None, id="r 1", conversation="t"),
    )
    await redrive(world, 2)

    report = (await world.erase(ADA)).report

    assert (report["interactions"], report["redriven_lost"]) == (2, 0)
    assert [found["offsets"] for found in report["letters"]] == [[[2, 2]]]
    kept = "SELECT position FROM dead_letters WHERE bytes IS NOT NULL"
    assert await world.ingesting.ask(kept) == [{"position": 1}]


async def test_redriven_events_without_their_letter_are_counted(world: ErasureWorld) -> None:
    await world.ingesting.add(a_refused("ada"))
    await redrive(world, 0)
    await world.database.write(lambda cursor: cursor.execute("DELETE FROM dead_letters"))

    report = (await world.erase(ADA)).report

    assert report["redriven_lost"] == 1
    assert "redriven events in Kafka" in [place["where"] for place in report["outside"]]


async def test_refused_batches_are_told_from_their_first_offset(world: ErasureWorld) -> None:
    why = UnreadableError("unpacks_too_large", "3 records, offsets 1 to 3, packed in 8 bytes")
    await world.ingesting.add(an_interaction())
    packed = chunk([b"\x1f\x8b packed"], start=3, begin=1, sender=why)
    await world.ingesting.sink.write(packed)

    report = (await world.erase(ADA)).report

    assert report["letters"] == []
    assert [found["offsets"] for found in report["unread_letters"]] == [[[1, 3]]]


async def test_published_letters_are_told_by_their_keys_and_time(world: ErasureWorld) -> None:
    letters = DeadLetterStore(world.database, clock=world.ingesting.clock)
    await world.ingesting.add(a_refused("ada"), a_refused("eve"))
    await letters.mark_published(await letters.unpublished(limit=10, max_bytes=1 << 20))
    await world.ingesting.add(a_refused("ada"))

    preview = await world.service.preview(ADA)
    report = (await world.erase(ADA)).report

    at_ms = int(world.ingesting.clock.now.timestamp() * 1000)
    told = report["published_letters"]
    assert told == {
        "letters": 2,
        "waiting": 1,
        "first_ms": at_ms,
        "last_ms": at_ms,
        "keys": ["kafka/events/0/0/0", "kafka/events/0/2/0"],
    }
    assert preview["published_letters"] == told
    (place,) = [p for p in beyond_reach(report, letters_topic="dead.v1") if "dead.v1" in p.where]
    assert (
        datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds")[:19] in place.what
    )
    assert "1 may have been on their way" in place.what
    assert "kafka/events/0/2/0" in place.what
    assert f"--topic dead.v1 --time {at_ms + 1}" in place.remedy
    unknown = [p.where for p in beyond_reach(report)]
    assert "Kafka the topic dead letters were published to" in unknown


async def test_letters_on_their_way_are_told_where_a_broker_is_set(world: ErasureWorld) -> None:
    await world.ingesting.add(a_refused("ada"))

    for bootstrap, told in ((None, 0), ("localhost:1", 1)):
        settings = Settings(home=world.home, kafka_bootstrap=bootstrap)
        parts = build_forgetting(settings, world.database, SECRET, NoRollouts())
        found = await parts.erasures.preview(ADA)
        assert [p["where"] for p in found["outside"]].count("Kafka dead-letters.v1") == told


async def test_who_has_no_letters_is_told_of_none(world: ErasureWorld) -> None:
    await world.ingesting.add(a_refused("eve"))

    report = (await world.erase(ADA)).report

    assert (report["letters"], report["published_letters"]) == ([], None)
    assert not any(place["where"].startswith("Kafka ") for place in report["outside"])
