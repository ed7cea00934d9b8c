"""What a replay reads, offset by offset: asked of the broker once, when it begins."""

from collections.abc import Collection, Mapping

from adaptd.consumers.kafka.log_reader import LogReader
from adaptd.consumers.kafka.topic_admin import Cluster
from adaptd.daemon.domain.ingest import KAFKA, LogRange, Partition, StoredOffset, is_same_log
from adaptd.daemon.domain.ports import EventSink
from adaptd.daemon.domain.replays import ReplayRange, ReplayRequest
from adaptd.daemon.wire.errors import RefusedError

Bounds = Mapping[Partition, tuple[int, int]]


async def ask_ranges(
    asked: ReplayRequest,
    cluster: Cluster,
    *,
    log: LogReader,
    sink: EventSink,
    live: Collection[str],
) -> list[ReplayRange]:
    """The ranges of every partition asked for, empty ones too.

    Raises:
        RefusedError: see `check_request`; a topic or partition does not exist, or was made anew.
        BrokerAwayError: the broker does not answer.
    """
    check_request(asked)
    places = _places(asked, cluster)
    bounds = await log.bounds(places)
    starts = await _starts(asked, log, bounds)
    ends = await _ends(asked, log, bounds)
    stored = await sink.offsets(KAFKA)
    return [
        _range(
            place, cluster, bounds[place], starts[place], ends[place], _live(place, live, stored)
        )
        for place in places
    ]


def check_request(asked: ReplayRequest) -> None:
    """Raises RefusedError where no part of a log can be meant."""
    by_offset = (asked.from_offset, asked.to_offset) != (None, None)
    by_time = (asked.from_time, asked.to_time) != (None, None)
    if not asked.topics:
        raise _refused("no topic is given", "Name one: --topic")
    if by_offset and by_time:
        raise _refused("offsets and times are both given", "Give one of the two")
    if asked.from_offset is not None and asked.from_offset < 0:
        raise _refused("offsets begin at 0", "Give an offset from 0 on")
    if _is_backwards(asked):
        raise _refused("the end does not come after the beginning", "The end is excluded")


def _is_backwards(asked: ReplayRequest) -> bool:
    if asked.from_offset is not None and asked.to_offset is not None:
        return asked.from_offset >= asked.to_offset
    if asked.from_time is not None and asked.to_time is not None:
        return asked.from_time >= asked.to_time
    return False


def _places(asked: ReplayRequest, cluster: Cluster) -> list[Partition]:
    found = []
    for topic in dict.fromkeys(asked.topics):
        if topic not in cluster.topics:
            raise _refused(f"there is no topic {topic}", "Check its name: `adaptd doctor`")
        numbers = range(cluster.topics[topic][1])
        if asked.partition is not None:
            if asked.partition not in numbers:
                raise _refused(f"{topic} has no partition {asked.partition}", "Count from 0")
            numbers = [asked.partition]
        found += [Partition(topic, number) for number in numbers]
    return found


async def _starts(asked: ReplayRequest, log: LogReader, bounds: Bounds) -> dict[Partition, int]:
    if asked.from_time is not None:
        found = await log.since(list(bounds), asked.from_time)
        return {
            place: end if (at := found[place]) is None else at for place, (_, end) in bounds.items()
        }
    return {
        place: first if asked.from_offset is None else asked.from_offset
        for place, (first, _) in bounds.items()
    }


async def _ends(asked: ReplayRequest, log: LogReader, bounds: Bounds) -> dict[Partition, int]:
    if asked.to_time is not None:
        found = await log.since(list(bounds), asked.to_time)
        return {
            place: end if (at := found[place]) is None else at for place, (_, end) in bounds.items()
        }
    return {
        place: end if asked.to_offset is None else asked.to_offset
        for place, (_, end) in bounds.items()
    }


def _live(
    place: Partition, live: Collection[str], stored: Mapping[Partition, StoredOffset]
) -> StoredOffset | None:
    """How far the live consumer is; None where it does not read this topic."""
    if place.topic not in live:
        return None
    return stored.get(place, StoredOffset(0))


def _range(
    place: Partition,
    cluster: Cluster,
    bounds: tuple[int, int],
    start: int,
    end: int,
    live: StoredOffset | None,
) -> ReplayRange:
    """Cut to what the broker has, and to what the live consumer has read.

    What it has yet to read it may reach after its dedupe window has forgotten the replayed copy.
    """
    topic_id = cluster.topics[place.topic][0]
    if live and not is_same_log(live, LogRange(topic_id, *bounds, cluster.cluster_id)):
        problem = f"{place.topic} is not the log that was read; it was made anew, or elsewhere"
        raise _refused(problem, "Accept that first: adaptd ingest resync")
    first = max(start, bounds[0])
    last = max(first, min(end, bounds[1]))
    reached = last if live is None else max(first, min(last, live.next_offset))
    return ReplayRange(
        topic=place.topic,
        partition=place.number,
        topic_id=topic_id,
        start=first,
        end=reached,
        gone=max(0, min(bounds[0], end) - start),
        left_to_live=last - reached,
    )


def _refused(problem: str, remedy: str) -> RefusedError:
    return RefusedError("replay", problem, remedy)
