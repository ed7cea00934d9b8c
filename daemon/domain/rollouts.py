"""A rollout and the facts of its guard, which the store keeps and the pure rules read."""

import secrets
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from adaptd.daemon.domain.states import RolloutState


class GuardMetric(StrEnum):
    """Events counted for each arm, at most once a unit (D8, D12)."""

    NEGATIVE = "negative"  # a rating below zero, or a correction
    ERROR = "error"  # status error or timeout
    LATENCY = "latency"  # slower per output token than live's frozen p95
    ASSIGNMENT = "assignment"  # the unit's first request: feeds the sample-ratio check


class Waiver(StrEnum):
    """A check that an operator waived for one rollout."""

    EVIDENCE = "evidence"  # `promote`: go on though the promotion test has not decided
    SAMPLE_RATIO = "sample_ratio"  # `resume` after the sample-ratio check paused


class LatencyLimit(msgspec.Struct, frozen=True):
    """Live's p95 of milliseconds per output token, among answers of one length class.

    Class `bucket` has 2^bucket tokens up to twice that. A mean over few tokens scatters more, so
    without classes a canary with shorter answers would seem slower.
    """

    bucket: int
    ms_per_token: float


class Frozen(msgspec.Struct, frozen=True, kw_only=True):
    """Limits fixed before the first unit reaches the canary, so that no choice follows the data."""

    latency_limits: list[LatencyLimit] = []


def new_rollout_id() -> str:
    # Also the salt of the assignment of units (D8): random, so that no two rollouts share one.
    return f"rollout-{secrets.token_hex(5)}"


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """One version on its way to live, and afterwards the record of how it got there.

    `previous` was live when the rollout began; None is the base. `step` counts from 1; 0 is before
    the first. `paused` says why the rollout does not advance; the guard still watches. `withdrawn`:
    its traffic goes to live. `approved_by` is the person who let it begin ("policy" where approval
    is automatic), None while it waits for that.
    """

    rollout_id: str = msgspec.field(default_factory=new_rollout_id)
    model: str
    candidate: str
    previous: str | None = None
    run_id: str | None = None
    state: RolloutState = RolloutState.LOADING
    step: int = 0
    paused: str | None = None
    withdrawn: bool = False
    approved_by: str | None = None
    override_reason: str | None = None
    waivers: list[Waiver] = []
    policy_version: int
    created_at: datetime
    step_started_at: datetime | None = None
    live_at: datetime | None = None
    finished_at: datetime | None = None
    frozen: Frozen | None = None
    evidence: dict[str, Any] = {}


class ArmTally(msgspec.Struct, frozen=True):
    """Counted events of one metric in one arm at one logged canary weight, 0 < weight < 1."""

    metric: GuardMetric
    on_canary: bool
    weight: float
    events: int


class GuardFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All facts the guard has of one rollout, as of one moment.

    `units` are distinct units per arm over the whole rollout, `units_this_step` those that the
    canary answered since the step began. `canary_errors_in_a_row` counts back from the canary's
    newest request; `live_ok_since` and `live_errors_since` count live's from the first of those on.
    """

    tallies: list[ArmTally] = []
    units_live: int = 0
    units_canary: int = 0
    units_this_step: int = 0
    canary_errors_in_a_row: int = 0
    live_ok_since: int = 0
    live_errors_since: int = 0
    ttft_ms_live: float | None = None  # median; reported only (D12)
    ttft_ms_canary: float | None = None
    last_event_at: datetime | None = None  # when the newest interaction of the alias was stored
