"""Legal changes of states."""

import pytest

from adaptd.daemon.domain.states import AdapterState, RunState
from adaptd.daemon.domain.transitions import (
    ADAPTER_MOVES,
    RUN_MOVES,
    check_adapter_move,
    check_run_move,
)
from adaptd.daemon.wire.errors import RefusedError


def test_every_state_has_its_moves() -> None:
    assert set(RUN_MOVES) == set(RunState)
    assert set(ADAPTER_MOVES) == set(AdapterState)


def test_a_run_leaves_a_final_state_never_and_every_other_one_can_fail() -> None:
    for state, moves in RUN_MOVES.items():
        assert bool(moves) != state.is_final
        assert state.is_final or {RunState.FAILED, RunState.CANCELLED} <= moves


def test_a_run_cannot_be_accepted_unevaluated() -> None:
    with pytest.raises(RefusedError, match="run r1: it is trained and cannot become accepted"):
        check_run_move("r1", RunState.TRAINED, RunState.ACCEPTED)


def test_a_run_cannot_be_trained_without_its_dataset() -> None:
    with pytest.raises(RefusedError, match="Possible: building, cancelled, failed"):
        check_run_move("r1", RunState.QUEUED, RunState.TRAINING)


def test_a_quarantined_version_must_be_released_before_it_takes_traffic() -> None:
    for state in (AdapterState.CANARY, AdapterState.LIVE):
        with pytest.raises(RefusedError):
            check_adapter_move("a@v1-00000000", AdapterState.QUARANTINED, state)
    check_adapter_move("a@v1-00000000", AdapterState.QUARANTINED, AdapterState.CANDIDATE)


def test_an_erased_version_stays_erased() -> None:
    with pytest.raises(RefusedError, match="this state is final"):
        check_adapter_move("a@v1-00000000", AdapterState.ERASED, AdapterState.LIVE)
