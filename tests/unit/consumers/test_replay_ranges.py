"""The ranges of a replay: bounded by the request, the broker and the live consumer."""

from datetime import UTC, datetime

import pytest

from adaptd.consumers.kafka.log_reader import LogReader
from adaptd.consumers.kafka.topic_admin import Cluster
from adaptd.consumers.rereading.ranges import ask_ranges
from adaptd.daemon.domain.ingest import KAFKA, LogRange, Partition, Span
from adaptd.daemon.domain.replays import ReplayRange, ReplayRequest
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.wire.errors import RefusedError
from adaptd.daemon.wire.kafka import KafkaSecurity
from tests.support.ingesting import Ingesting, no_events

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
CLUSTER = Cluster(cluster_id="c", topics={"t": ("id", 2), "other": ("id2", 1)})


class Log(LogReader):
    """A broker that has 10 to 100 of every partition, a record a minute from noon on at 50."""

    def __init__(self) -> None:
        super().__init__("nowhere:1", security=KafkaSecurity())

    async def bounds(self, places: object) -> dict[Partition, tuple[int, int]]:
        return dict.fromkeys(places, (10, 100))  # pyright: ignore

    async def offsets_since(self, places: object, moment: datetime) -> dict[Partition, int | None]:
        offset = 50 + int((moment - NOON).total_seconds() / 60)
        return dict.fromkeys(places, offset if offset < 100 else None)  # pyright: ignore


async def ranges(live: int | None = None, topic: str = "t", **asked: object) -> list[ReplayRange]:
    database = Database.open(":memory:")
    try:
        sink = Ingesting(database).sink
        if live is not None:
            places = [Partition("t", 0), Partition("t", 1)]
            found = {place: LogRange("id", 0, 100) for place in places}
            await sink.pin(KAFKA, found)
            await sink.write(no_events(*[Span(place, 0, live) for place in places]))
        return await ask_ranges(
            ReplayRequest(topics=[topic], **asked),  # pyright: ignore
            CLUSTER,
            log=Log(),
            sink=sink,
            live=["t"],
        )
    finally:
        database.close()


def spans(found: list[ReplayRange]) -> list[tuple[int, int]]:
    return [(part.start, part.end) for part in found]


async def test_without_bounds_it_is_all_there_is() -> None:
    assert spans(await ranges(live=100)) == [(10, 100)] * 2
    assert spans(await ranges(topic="other")) == [(10, 100)]


async def test_offsets_are_cut_to_what_the_broker_has_and_the_rest_is_told() -> None:
    [part] = await ranges(live=100, partition=1, from_offset=3, to_offset=500)

    assert (part.partition, part.start, part.end, part.gone) == (1, 10, 100, 7)
    [gone] = await ranges(live=100, partition=0, from_offset=3, to_offset=8)
    assert (gone.start, gone.end, gone.gone) == (10, 10, 5)


async def test_times_are_the_brokers_record_times() -> None:
    later = NOON.replace(minute=20)

    assert spans(await ranges(live=100, from_time=NOON, to_time=later)) == [(50, 70)] * 2
    next_year = NOON.replace(year=2027)
    assert spans(await ranges(live=100, from_time=next_year)) == [(100, 100)] * 2
    assert spans(await ranges(live=100, to_time=next_year)) == [(10, 100)] * 2


async def test_what_the_live_consumer_has_yet_to_read_is_left_to_it() -> None:
    """The live consumer's window may have forgotten a replayed copy when it gets there."""
    [part] = await ranges(live=60, partition=0, from_offset=20)

    assert (part.start, part.end, part.left_to_live) == (20, 60, 40)
    assert spans(await ranges(from_offset=20)) == [(20, 20)] * 2, "it has read nothing yet"


@pytest.mark.parametrize(
    "asked",
    [
        {"from_offset": 1, "from_time": NOON},
        {"from_offset": 9, "to_offset": 9},
        {"from_time": NOON, "to_time": NOON},
        {"partition": 2},
        {"from_offset": -1},
    ],
)
async def test_what_makes_no_sense_is_refused(asked: dict[str, object]) -> None:
    with pytest.raises(RefusedError):
        await ranges(**asked)  # pyright: ignore


async def test_a_topic_that_is_not_there_is_refused() -> None:
    with pytest.raises(RefusedError, match="no topic"):
        await ranges(topic="absent")
