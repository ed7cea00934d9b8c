"""Legal changes of state. Pure; the stores ask before they write."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from adaptd.daemon.domain.states import AdapterState, RunState
from adaptd.daemon.wire.errors import RefusedError

S = TypeVar("S", bound=StrEnum)

_STOPPED = (RunState.FAILED, RunState.CANCELLED)
_JUDGED = (RunState.ACCEPTED, RunState.REJECTED, RunState.INCONCLUSIVE)
RUN_MOVES: Mapping[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.BUILDING, *_STOPPED}),
    RunState.BUILDING: frozenset({RunState.TRAINING, *_STOPPED}),
    RunState.TRAINING: frozenset({RunState.TRAINED, *_STOPPED}),
    RunState.TRAINED: frozenset({RunState.EVALUATING, *_STOPPED}),
    RunState.EVALUATING: frozenset({*_JUDGED, *_STOPPED}),
    **{state: frozenset() for state in RunState if state.is_final},
}

_A = AdapterState
_OUT_OF_USE = (_A.RETIRED, _A.QUARANTINED, _A.TAINTED)
# An operator may force a retired version past the gate, and give traffic back to any version that
# was once live; a quarantined one has to be released (candidate) first. Erased is for good.
ADAPTER_MOVES: Mapping[AdapterState, frozenset[AdapterState]] = {
    _A.CANDIDATE: frozenset({_A.CANARY, _A.LIVE, *_OUT_OF_USE}),
    _A.CANARY: frozenset({_A.LIVE, _A.CANDIDATE, *_OUT_OF_USE}),
    _A.LIVE: frozenset({_A.LAST_GOOD, *_OUT_OF_USE}),
    _A.LAST_GOOD: frozenset({_A.LIVE, *_OUT_OF_USE}),
    _A.RETIRED: frozenset(
        {_A.CANARY, _A.LIVE, _A.LAST_GOOD, _A.QUARANTINED, _A.TAINTED, _A.ERASED}
    ),
    _A.QUARANTINED: frozenset({_A.CANDIDATE, _A.RETIRED, _A.TAINTED, _A.ERASED}),
    _A.TAINTED: frozenset({_A.LIVE, _A.RETIRED, _A.ERASED}),
    _A.ERASED: frozenset(),
}


def check_run_move(run_id: str, before: RunState, after: RunState) -> None:
    """Raises RefusedError where a run in `before` may not become `after`."""
    _check_move(f"run {run_id}", RUN_MOVES, before, after)


def check_adapter_move(name: str, before: AdapterState, after: AdapterState) -> None:
    """Raises RefusedError where a version in `before` may not become `after`."""
    _check_move(f"adapter {name}", ADAPTER_MOVES, before, after)


def _check_move(where: str, moves: Mapping[S, frozenset[S]], before: S, after: S) -> None:
    if after in moves[before]:
        return
    allowed = ", ".join(sorted(moves[before])) or "nothing: this state is final"
    raise RefusedError(where, f"it is {before} and cannot become {after}", f"Possible: {allowed}")
