"""When a trainer gives way, for how long, and that it always comes to its share."""

import random
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from daemon.training.pauses import (
    LEAST_SHARE,
    LONGEST_PAUSE_S,
    SHORTEST_RUN_S,
    PauseFacts,
    Pauses,
    should_pause,
)
from tests.waiting import until_blocking


def runs(waiting: int | None, *, ran_s: float = 60, paused_s: float = 0) -> PauseFacts:
    return PauseFacts(waiting=waiting, is_paused=False, paused_s=paused_s, ran_s=ran_s)


def stands(waiting: int | None, *, paused_s: float) -> PauseFacts:
    return PauseFacts(waiting=waiting, is_paused=True, paused_s=paused_s, ran_s=0)


def test_a_trainer_gives_way_while_requests_wait() -> None:
    assert should_pause(runs(1))
    assert should_pause(stands(1, paused_s=LONGEST_PAUSE_S / 2))


@pytest.mark.parametrize("waiting", [0, None])
def test_it_runs_where_none_wait_or_nobody_knows(waiting: int | None) -> None:
    assert not should_pause(runs(waiting))
    assert not should_pause(stands(waiting, paused_s=0.1))


def test_a_pause_ends_whatever_waits() -> None:
    assert not should_pause(stands(100, paused_s=LONGEST_PAUSE_S))


def test_after_a_pause_it_runs_for_a_while_whatever_waits() -> None:
    assert not should_pause(runs(100, ran_s=SHORTEST_RUN_S * 0.9, paused_s=0.5))
    assert should_pause(runs(100, ran_s=SHORTEST_RUN_S, paused_s=0.5))


def test_a_pause_that_came_to_last_longer_is_paid_back() -> None:
    assert not should_pause(runs(100, ran_s=9, paused_s=30))
    assert should_pause(runs(100, ran_s=10, paused_s=30))


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("seed", range(5))
def test_under_any_traffic_and_delay_it_runs_a_quarter_of_the_time(
    seed: int, sleeper: subprocess.Popen[bytes]
) -> None:
    chance, clock, waiting = random.Random(seed), Clock(), [0]
    pauses = Pauses(lambda: waiting[0], clock=clock)
    for _ in range(400):
        waiting[0] = chance.choice([0, 1, 8, 8, 8])
        pauses.decide(sleeper.pid)
        ran_s = clock.now_s - pauses.total_s
        owed_s = LONGEST_PAUSE_S + 5  # the pause it is in, and a look that came late
        assert ran_s >= LEAST_SHARE * (clock.now_s - owed_s)
        clock.now_s += chance.choice([0.25, 0.25, 0.25, 1, 5])
    pauses.close()


def test_a_group_stops_and_goes_on_and_the_time_between_is_told(
    sleeper: subprocess.Popen[bytes],
) -> None:
    clock, waiting, process = Clock(), [1], psutil.Process(sleeper.pid)
    pauses = Pauses(lambda: waiting[0], clock=clock)

    pauses.decide(sleeper.pid)
    until_blocking(lambda: process.status() == psutil.STATUS_STOPPED, within_s=10)
    clock.now_s += 2
    assert pauses.total_s == 2
    waiting[0] = 0
    pauses.decide(sleeper.pid)
    until_blocking(lambda: process.status() == psutil.STATUS_SLEEPING, within_s=10)
    clock.now_s += 5

    assert pauses.total_s == 2
    read = f"import os; print(float(os.pread({pauses.descriptor}, 32, 0)))"
    told = subprocess.run(
        ["python3", "-c", read], pass_fds=[pauses.descriptor], capture_output=True, check=True
    )
    assert float(told.stdout) == 2
    pauses.close()


def test_a_child_that_has_ended_is_neither_stopped_nor_continued(
    sleeper: subprocess.Popen[bytes],
) -> None:
    sleeper.kill()
    sleeper.wait()
    pauses = Pauses(lambda: 1)
    pauses.decide(sleeper.pid)
    pauses.resume(sleeper.pid)
    pauses.close()
