"""Limits of the tests count a quiet machine's seconds in full and a busy one's a tenth."""

import pytest

from tests.support.waiting import SLACK, Patience, busy_s, until, until_blocking


class Machine:
    """Time passes, with so much work a second, as it is told."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.busy_s = 7.0

    def patience(self, limit_s: float) -> Patience:
        return Patience(limit_s, clock=lambda: self.now_s, busy=lambda: self.busy_s)

    def run(self, seconds: float, *, busy: float) -> None:
        self.now_s += seconds
        self.busy_s += seconds * busy


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_a_quiet_machine_is_waited_for_as_long_as_was_said(machine: Machine) -> None:
    patience = machine.patience(10)
    machine.run(9, busy=0)
    assert patience.left_s() == pytest.approx(1)
    machine.run(1, busy=0)
    assert patience.left_s() <= 0


@pytest.mark.parametrize("busy", [1.0, 2.0, 64.0])
def test_a_busy_one_is_waited_for_ten_times_as_long_and_no_longer(
    machine: Machine, busy: float
) -> None:
    patience = machine.patience(10)
    machine.run(95, busy=busy)
    assert patience.left_s() == pytest.approx(0.5)
    machine.run(10 * SLACK - 95, busy=busy)
    assert patience.left_s() == pytest.approx(0)


def test_only_its_quiet_seconds_count_in_full(machine: Machine) -> None:
    patience = machine.patience(10)
    machine.run(40, busy=1)
    machine.run(5, busy=0)
    assert patience.left_s() == pytest.approx(10 - 4 - 5)
    machine.run(1, busy=0)
    assert patience.left_s() <= 0


def test_a_machine_that_does_not_say_is_taken_for_a_quiet_one(machine: Machine) -> None:
    patience = machine.patience(10)
    machine.run(11, busy=0)
    assert patience.left_s() < 0


def test_work_is_seen() -> None:
    before = busy_s()
    until_blocking(lambda: busy_s() > before + 0.05, within_s=10, every_s=0)


async def test_what_never_comes_ends_with_the_last_answer() -> None:
    with pytest.raises(AssertionError, match=r"still \[\] after 0.05 s"):
        await until(list, within_s=0.05, every_s=0.01)
    with pytest.raises(AssertionError, match="still None after 0 s"):
        until_blocking(lambda: None, within_s=0)
