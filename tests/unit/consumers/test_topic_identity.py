"""Gaps: the offsets that the broker no longer has are named exactly and never skipped."""

import pytest

from adaptd.consumers.kafka.topic_identity import GapError, find_gaps
from adaptd.daemon.domain.ingest import LogRange, Partition, StoredOffset

AT = Partition("events", 0)


def stored(next_offset: int, topic_id: str | None = "a") -> dict[Partition, StoredOffset]:
    return {AT: StoredOffset(next_offset, "c", topic_id)}


@pytest.mark.parametrize("next_offset", [10, 15, 20])
def test_an_offset_the_broker_has_is_no_gap(next_offset: int) -> None:
    assert find_gaps(stored(next_offset), {AT: LogRange("a", 10, 20)}) == []


def test_retention_that_passed_us_names_the_offsets_lost() -> None:
    [gap] = find_gaps(stored(4), {AT: LogRange("a", 10, 20)})

    assert (gap.kind, gap.next_offset, gap.earliest, gap.lost) == ("expired", 4, 10, 6)
    assert str(gap) == "events[0]: offsets 4 to 9 are gone"


def test_a_log_shorter_than_what_was_read_is_a_gap() -> None:
    [gap] = find_gaps(stored(21), {AT: LogRange("a", 10, 20)})

    assert (gap.kind, gap.end) == ("truncated", 20)


def test_a_recreated_topic_is_a_gap_even_where_the_offset_would_fit() -> None:
    [gap] = find_gaps(stored(15), {AT: LogRange("b", 10, 20)})

    assert (gap.kind, gap.topic_id_stored, gap.topic_id_found) == ("recreated", "a", "b")


def test_brokers_without_topic_ids_are_judged_by_offsets() -> None:
    assert find_gaps(stored(15), {AT: LogRange(None, 10, 20)}) == []
    assert find_gaps(stored(15, None), {AT: LogRange("b", 10, 20)}) == []


def test_another_cluster_is_a_gap_even_where_the_offset_would_fit() -> None:
    [gap] = find_gaps(stored(15), {AT: LogRange("a", 10, 20, "d")})

    assert (gap.kind, gap.cluster_id_stored, gap.cluster_id_found) == ("other_cluster", "c", "d")
    assert "another cluster (everything before 15 of c was read; d has 10 to 20" in str(gap)
    assert find_gaps(stored(15), {AT: LogRange("a", 10, 20, "c")}) == []


def test_a_missing_partition_is_a_gap() -> None:
    [gap] = find_gaps(stored(15), {Partition("events", 1): LogRange("a", 0, 0)})

    assert (gap.kind, gap.next_offset) == ("missing", 15)


def test_the_error_names_every_gap_and_what_to_do() -> None:
    two = stored(4) | {Partition("events", 1): StoredOffset(7, "c", "a")}

    error = GapError(find_gaps(two, {AT: LogRange("a", 10, 20)}))

    assert "events[0]: offsets 4 to 9 are gone; events[1]: it no longer exists" in str(error)
    assert "adaptd ingest resync" in str(error)
