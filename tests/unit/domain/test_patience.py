"""Waits that end once nothing moves: movements, and the message at the end."""

import pytest

from adaptd.daemon.domain.patience import Patience, Peak, WorkPatience
from adaptd.daemon.domain.processes import Work


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_moves_may_take_any_time(clock: Clock) -> None:
    patience = Patience(60, clock=clock)
    for step in range(100):
        clock.now += 20
        patience.saw(step=step // 2)
    assert not patience.is_over


def test_what_stands_still_is_over_and_says_what_moved_last(clock: Clock) -> None:
    patience = Patience(60, clock=clock)
    for _ in range(8):
        patience.saw(answers=34, run="training")
        clock.now += 10
    assert patience.is_over
    assert patience.words == "nothing moved for 80 s of 80 s, last run training"


def test_what_is_not_known_now_and_known_again_has_not_moved(clock: Clock) -> None:
    patience = Patience(60, clock=clock)
    for known in (3, None, 3, None, 3, None, 3):
        patience.saw(step=known)
        clock.now += 10
    assert patience.is_over


def test_nothing_at_all_is_over_too(clock: Clock) -> None:
    patience = Patience(60, clock=clock)
    clock.now = 25
    patience.saw()
    clock.now = 61
    assert patience.is_over
    assert "nothing before" in patience.words


def test_a_time_in_which_nobody_looked_does_not_count(clock: Clock) -> None:
    patience = Patience(60, clock=clock)
    patience.saw(step=1)
    clock.now = 3600
    patience.saw(step=1)
    assert not patience.is_over
    clock.now += 61
    assert patience.is_over


def test_slow_looks_that_see_nothing_end_too(clock: Clock) -> None:
    patience = Patience(300, clock=clock)
    while not patience.is_over and clock.now < 3600:
        clock.now += 40.5  # two requests that nobody answers, and the pause
        patience.saw(waits=None)
    assert clock.now < 500


def seconds_until_over(clock: Clock, *, cpu_share: float, lines_every_s: float = 1e9) -> float:
    """Seconds until the wait for such a process is over: its load, and a line now and then."""
    patience = WorkPatience(600, most=12, clock=clock)
    while not patience.is_over and clock.now < 50_000:
        clock.now += 20
        patience.saw(work=Work(cpu_share * clock.now, 0), lines=int(clock.now / lines_every_s))
    return clock.now


def test_a_process_that_does_nothing_is_over_after_the_limit(clock: Clock) -> None:
    assert seconds_until_over(clock, cpu_share=0) == pytest.approx(600, abs=60)


def test_a_process_that_only_computes_is_over_after_so_many_times_the_limit(clock: Clock) -> None:
    assert seconds_until_over(clock, cpu_share=1) == pytest.approx(12 * 600, abs=60)


def test_a_process_that_computes_and_says_so_may_take_any_time(clock: Clock) -> None:
    assert seconds_until_over(clock, cpu_share=1, lines_every_s=3600) == 50_000


def test_the_words_tell_who_computes_from_who_does_not(clock: Clock) -> None:
    still, busy = (WorkPatience(60, most=10, clock=clock) for _ in range(2))
    while not busy.is_over:
        clock.now += 20
        still.saw(work=Work(1, 0), lines=3)
        busy.saw(work=Work(clock.now, 0), lines=3)
    assert still.words == "nothing moved for 620 s of 640 s, last lines 3"
    assert busy.words == f"it computes, and beside that {still.words}"


def test_evidence_moves_only_where_it_reaches_a_new_height() -> None:
    peak = Peak()
    assert [peak.of(value) for value in (None, 1.0, 0.5, 1.05, 1.2, 0.1, 1.25)] == [
        *(None, 1.0, 1.0, 1.0, 1.2, 1.2, 1.2)
    ]
