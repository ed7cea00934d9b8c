"""The decision after a failed attempt."""

from typing import Any

import pytest

from adaptd.daemon.domain.states import FailureCause
from adaptd.daemon.training.service import MAX_ATTEMPTS, NextAttempt, decide_retry


def test_out_of_memory_is_tried_once_with_half_the_micro_batch() -> None:
    first = decide_retry(FailureCause.OOM, stalled=1, lowered_to=None, micro_batch=16)
    assert first == NextAttempt(8)
    second = decide_retry(FailureCause.OOM, stalled=2, lowered_to=8, micro_batch=8)
    assert second is FailureCause.OOM


def test_out_of_memory_with_a_single_row_is_final() -> None:
    last = decide_retry(FailureCause.OOM, stalled=1, lowered_to=None, micro_batch=1)
    assert last is FailureCause.OOM


def test_a_killed_child_resumes_as_it_was_and_not_for_ever() -> None:
    again = decide_retry(FailureCause.KILLED, stalled=2, lowered_to=8, micro_batch=8)
    assert again == NextAttempt(8)
    last = decide_retry(FailureCause.KILLED, stalled=MAX_ATTEMPTS, lowered_to=None, micro_batch=16)
    assert last is FailureCause.KILLED


def test_killed_again_at_the_same_step_is_out_of_memory() -> None:
    killed: dict[str, Any] = {"cause": FailureCause.KILLED, "killed_again": True}
    assert decide_retry(**killed, stalled=2, lowered_to=None, micro_batch=16) == NextAttempt(8)
    last = decide_retry(**killed, stalled=3, lowered_to=8, micro_batch=8)
    assert last is FailureCause.OOM
    smallest = decide_retry(**killed, stalled=2, lowered_to=None, micro_batch=1)
    assert smallest is FailureCause.OOM


@pytest.mark.parametrize("cause", FailureCause)
def test_nothing_is_started_more_often_than_the_maximum(cause: FailureCause) -> None:
    last = decide_retry(cause, stalled=MAX_ATTEMPTS, lowered_to=None, micro_batch=16)
    assert last is cause


@pytest.mark.parametrize(
    "cause", sorted(set(FailureCause) - {FailureCause.OOM, FailureCause.KILLED})
)
def test_anything_else_would_fail_again(cause: FailureCause) -> None:
    assert decide_retry(cause, stalled=1, lowered_to=None, micro_batch=16) is cause
