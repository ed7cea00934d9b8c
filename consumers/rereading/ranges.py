"""The ranges of a replay: the offsets that it reads, asked of the broker once, at its start."""

from collections.abc import Collection, Mapping
from datetime import datetime

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
    """Return the range of every partition asked for, empty ones too.

    Raises:
        RefusedError: see `check_request`; a topic or partition does not exist, or was recreated.
        BrokerAwayError: the broker does not answer.
    """
    check_request(asked)
    places = _list_places(asked, cluster)
    bounds = await log.bounds(places)
    starts = await _find_starts(asked, log, bounds)
    ends = await _find_ends(asked, log, bounds)
    stored = await sink.offsets(KAFKA)
    return [
        _make_range(
            place,
            cluster,
            bounds[place],
            starts[place],
            ends[place],
            _live_offset(place, live, stored),
        )
        for place in places
    ]


def check_request(asked: ReplayRequest) -> None:
    """Raise RefusedError where the request cannot mean a part of a log."""
    by_offset = (asked.from_offset, asked.to_offset) != (None, None)
    by_time = (asked.from_time, asked.to_time) != (None, None)
    if not asked.topics:
        raise _request_error("no topic is given", "Name one: --topic")
    if by_offset and by_time:
        raise _request_error("offsets and times are both given", "Give one of the two")
    if asked.from_offset is not None and asked.from_offset < 0:
        raise _request_error("offsets begin at 0", "Give an offset from 0 on")
    if _is_backwards(asked):
        raise _request_error("the end does not come after the beginning", "The end is excluded")


def _is_backwards(asked: ReplayRequest) -> bool:
    if asked.from_offset is not None and asked.to_offset is not None:
        return asked.from_offset >= asked.to_offset
    if asked.from_time is not None and asked.to_time is not None:
        return asked.from_time >= asked.to_time
    return False


def _list_places(asked: ReplayRequest, cluster: Cluster) -> list[Partition]:
    found = []
    for topic in dict.fromkeys(asked.topics):
        if topic not in cluster.topics:
            raise _request_error(f"there is no topic {topic}", "Check its name: `adaptd doctor`")
        numbers = range(cluster.topics[topic][1])
        if asked.partition is not None:
            if asked.partition not in numbers:
                raise _request_error(f"{topic} has no partition {asked.partition}", "Count from 0")
            numbers = [asked.partition]
        found += [Partition(topic, number) for number in numbers]
    return found


async def _find_starts(
    asked: ReplayRequest, log: LogReader, bounds: Bounds
) -> dict[Partition, int]:
    if asked.from_time is not None:
        return await _find_offsets(asked.from_time, log, bounds)
    return {
        place: first if asked.from_offset is None else asked.from_offset
        for place, (first, _) in bounds.items()
    }


async def _find_ends(asked: ReplayRequest, log: LogReader, bounds: Bounds) -> dict[Partition, int]:
    if asked.to_time is not None:
        return await _find_offsets(asked.to_time, log, bounds)
    return {
        place: end if asked.to_offset is None else asked.to_offset
        for place, (_, end) in bounds.items()
    }


async def _find_offsets(moment: datetime, log: LogReader, bounds: Bounds) -> dict[Partition, int]:
    """Return the first offsets at or after a time; the end where no record is so late."""
    found = await log.offsets_since(list(bounds), moment)
    return {
        place: end if (at := found[place]) is None else at for place, (_, end) in bounds.items()
    }


def _live_offset(
    place: Partition, live: Collection[str], stored: Mapping[Partition, StoredOffset]
) -> StoredOffset | None:
    """Return the live consumer's offset; None: it does not read this topic."""
    if place.topic not in live:
        return None
    return stored.get(place, StoredOffset(0))


def _make_range(
    place: Partition,
    cluster: Cluster,
    bounds: tuple[int, int],
    start: int,
    end: int,
    live: StoredOffset | None,
) -> ReplayRange:
    # Cut to what the broker has, and to what the live consumer has read. It may reach the rest only
    # after the dedupe window, which no longer has the replayed copy: then events would stand twice.
    topic_id = cluster.topics[place.topic][0]
    if live and not is_same_log(live, LogRange(topic_id, *bounds, cluster.cluster_id)):
        problem = f"{place.topic} is not the log that was read: it was recreated, or is elsewhere"
        raise _request_error(problem, "Accept that first: adaptd ingest resync")
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


def _request_error(problem: str, remedy: str) -> RefusedError:
    return RefusedError("replay", problem, remedy)
