"""A consumer is stuck when something waits and nothing moves."""

import pytest

from adaptd.consumers.kafka.stall_detector import StallDetector, StalledError, count_lags
from adaptd.daemon.domain.ingest import Partition

AT = Partition("events", 0)


def watch(*seen: tuple[float, int, int, int, int]) -> None:
    """Note progress every second. Each row: second, position, readable end, handed over, stored."""
    detector = StallDetector(10, now_s=0)
    then = [row[0] for row in seen[1:]] + [seen[-1][0] + 1]
    for (since_s, position, end, handed, stored), until_s in zip(seen, then, strict=True):
        for now_s in range(int(since_s), int(until_s)):
            detector.note_progress(
                {AT: (position, end)}, {AT: handed}, {AT: stored}, unassigned=set(), now_s=now_s
            )


def test_an_idle_topic_is_not_stuck() -> None:
    watch((1, 5, 5, 5, 5), (100, 5, 5, 5, 5))


def test_a_log_that_ends_in_transaction_markers_is_not_stuck() -> None:
    watch((1, 6, 6, 5, 5), (100, 6, 6, 5, 5))


def test_a_slow_consumer_is_not_stuck() -> None:
    watch((1, 5, 90, 5, 5), (9, 6, 90, 6, 6), (18, 7, 90, 7, 7))


def test_records_that_are_not_fetched_are_noticed() -> None:
    with pytest.raises(StalledError, match="nothing moved for 11 s"):
        watch((1, 5, 9, 5, 5), (12, 5, 9, 5, 5))


def test_chunks_that_are_not_stored_are_noticed() -> None:
    with pytest.raises(StalledError):
        watch((1, 9, 9, 9, 5), (12, 9, 9, 9, 5))


def test_chunks_that_are_not_stored_are_noticed_while_more_arrive() -> None:
    with pytest.raises(StalledError, match="nothing moved for 11 s"):
        watch(*((second, 5 + second, 90, 5 + second, 5) for second in range(1, 60)))


def test_a_store_that_lags_behind_what_arrives_is_not_stuck() -> None:
    watch(*((second, 5 + second, 90, 5 + second, second // 9) for second in range(1, 60)))


def test_a_partition_that_nobody_reads_is_noticed() -> None:
    detector = StallDetector(10, now_s=0)
    for now_s in range(1, 12):
        detector.note_progress({}, {}, {}, unassigned={AT}, now_s=now_s)
    with pytest.raises(StalledError):
        detector.note_progress({}, {}, {}, unassigned={AT}, now_s=12)


def test_a_process_that_was_stopped_itself_blames_nobody() -> None:
    detector = StallDetector(10, now_s=0)
    for now_s in (1, 2, 60, 61, 69):  # 58 s of them under SIGSTOP
        detector.note_progress({AT: (5, 9)}, {AT: 5}, {AT: 5}, unassigned=set(), now_s=now_s)


def test_a_partition_that_nobody_reads_is_asked_for_ever_more_rarely() -> None:
    detector = StallDetector(100, now_s=0)
    asked = []
    for now_s in range(1, 60):
        detector.note_progress({}, {}, {}, unassigned=set() if now_s == 50 else {AT}, now_s=now_s)
        if detector.should_rejoin(now_s=now_s):
            asked.append(now_s)

    assert asked == [4, 10, 22, 46, 54]


def test_while_the_broker_is_away_waiting_is_right() -> None:
    detector = StallDetector(10, now_s=0)
    detector.note_progress({AT: (5, 9)}, {AT: 5}, {AT: 5}, unassigned=set(), now_s=1)
    for now_s in range(2, 30):
        detector.reset_timer(now_s=now_s)
        detector.note_progress({AT: (5, 9)}, {AT: 5}, {AT: 5}, unassigned=set(), now_s=now_s)


@pytest.mark.parametrize(
    ("position", "end", "handed", "stored", "lag"),
    [(5, 5, 5, 5, 0), (6, 6, 5, 5, 0), (5, 9, 5, 5, 4), (9, 9, 9, 5, 4), (9, 12, 9, 5, 7)],
)
def test_lag_is_what_is_not_stored(
    position: int, end: int, handed: int, stored: int, lag: int
) -> None:
    assert count_lags({AT: (position, end)}, {AT: handed}, {AT: stored}) == {AT: lag}
