"""The pauses of a trainer: their causes, their length, and the share of time that it keeps."""

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from adaptd.daemon.training.launcher import TrainingChild
from adaptd.daemon.training.pauses import (
    LEAST_SHARE,
    LONGEST_PAUSE_S,
    SHORTEST_RUN_S,
    PauseFacts,
    Pauses,
    should_pause,
)
from tests.support.waiting import LIMIT_S, until, until_blocking


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
        owed_s = LONGEST_PAUSE_S + 5  # the present pause, and a decision that came late
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


def cannot_tell(pauses: Pauses) -> None:
    """Make each write fail with ENOSPC, as on a full disk."""
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, pauses.descriptor)
    os.close(full)


def test_a_child_that_cannot_be_told_goes_on_all_the_same(
    sleeper: subprocess.Popen[bytes],
) -> None:
    waiting, process, pauses = [1], psutil.Process(sleeper.pid), Pauses(lambda: waiting[0])
    cannot_tell(pauses)
    pauses.decide(sleeper.pid)
    until_blocking(lambda: process.status() == psutil.STATUS_STOPPED, within_s=10)
    waiting[0] = 0
    pauses.decide(sleeper.pid)
    until_blocking(lambda: process.status() == psutil.STATUS_SLEEPING, within_s=10)
    pauses.close()


class BrokenPauses(Pauses):
    """Pauses that fail at the moment when the child should continue."""

    def resume(self, group: int) -> None:
        raise OSError(f"group {group} stays stopped")


async def a_stopped_child(script: str, pauses: Pauses, *, grace_s: float) -> TrainingChild:
    process = await asyncio.create_subprocess_exec("/bin/sh", "-c", script, start_new_session=True)
    child = TrainingChild(process, poll_s=0.05, grace_s=grace_s, pauses=pauses)
    state = psutil.Process(child.pid)
    await until(lambda: state.name() == "sleep", within_s=10)  # past its `trap`
    pauses.decide(child.pid)
    await until(lambda: state.status() == psutil.STATUS_STOPPED, within_s=10)
    return child


@pytest.mark.parametrize(
    ("script", "grace_s", "ended_by"),
    [
        ("exec sleep 60", LIMIT_S, signal.SIGTERM),
        ("trap '' TERM; exec sleep 60", 0.2, signal.SIGKILL),
    ],
)
async def test_a_stopped_child_that_cannot_be_told_is_ended(
    script: str, grace_s: float, ended_by: signal.Signals
) -> None:
    pauses = Pauses(lambda: 1)
    cannot_tell(pauses)
    child = await a_stopped_child(script, pauses, grace_s=grace_s)

    await child.stop()

    assert child.returncode == -ended_by
    pauses.close()


async def test_a_child_that_cannot_be_continued_is_killed() -> None:
    pauses = BrokenPauses(lambda: 1)
    child = await a_stopped_child("exec sleep 60", pauses, grace_s=LIMIT_S)

    with pytest.raises(OSError, match="stays stopped"):
        await child.stop()

    assert child.returncode == -signal.SIGKILL
    pauses.close()


async def test_a_child_is_killed_where_nobody_waits_for_its_end_any_more() -> None:
    pauses = Pauses(lambda: 0)
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", "trap '' TERM; exec sleep 60", start_new_session=True
    )
    child = TrainingChild(process, poll_s=0.05, grace_s=LIMIT_S, pauses=pauses)
    state = psutil.Process(child.pid)
    await until(lambda: state.name() == "sleep", within_s=10)
    stopping = asyncio.create_task(child.stop())
    await asyncio.sleep(0)

    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping

    assert child.returncode == -signal.SIGKILL
    pauses.close()
