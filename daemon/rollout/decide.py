"""Choose what a rollout does next, from its state, the facts and its plan. Pure."""

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from adaptd.daemon.domain.receipts import Receipt
from adaptd.daemon.domain.rollouts import Rollout, Waiver
from adaptd.daemon.domain.states import RolloutState
from adaptd.daemon.rollout.guard import GuardRuling, Health
from adaptd.daemon.rollout.plan import Plan


class Act(StrEnum):
    HOLD = "hold"
    VERIFY = "verify"
    STEP = "step"
    PROMOTE = "promote"
    ROLL_BACK = "roll back"
    ABORT = "abort"  # it never took traffic
    DROP = "drop"  # the same, and nothing speaks against it
    PAUSE = "pause"
    WITHDRAW = "withdraw"  # pause, and its traffic goes to live
    ALERT = "alert"


class NextAction(msgspec.Struct, frozen=True):
    """An act with its reason. `asks`: only a person can move the rollout on. `step`: STEP only."""

    act: Act
    reason: str
    step: int = 0
    asks: bool = False


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """The present facts of one rollout.

    `receipt` belongs to the host's present process; `problem` says why there is none yet. `behind`
    names the rollout that holds the server's one place. `outdated` says why the verdict no longer
    counts, and `blind` why the guard cannot see what the canary does.
    """

    problem: str | None = None
    receipt: Receipt | None = None
    health: Health | None = None
    behind: str | None = None
    outdated: str | None = None
    blind: str | None = None


def next_action(rollout: Rollout, situation: Situation, plan: Plan, *, now: datetime) -> NextAction:
    """Choose the next action. The same facts give the same action."""
    if rollout.state == RolloutState.LOADING:
        return _before_receipt(rollout, situation)
    if rollout.state == RolloutState.VERIFIED:
        return _first_step(rollout, situation)
    if rollout.state == RolloutState.STEP:
        return _on_step(rollout, situation, plan, now)
    if rollout.state == RolloutState.LIVE:
        return _after_promotion(rollout, situation, plan, now)
    return NextAction(Act.HOLD, f"it is {rollout.state}")


def _before_receipt(rollout: Rollout, situation: Situation) -> NextAction:
    if held := _not_begun(rollout, situation):
        return held
    if situation.receipt is None:
        return NextAction(Act.HOLD, situation.problem or "it is being loaded and probed")
    if not situation.receipt.passed:
        return NextAction(Act.ABORT, f"no swap receipt: {situation.receipt.reason}")
    return NextAction(Act.VERIFY, "the host applies it as trained")


def _first_step(rollout: Rollout, situation: Situation) -> NextAction:
    if held := _not_begun(rollout, situation):
        return held
    if situation.receipt is None or not situation.receipt.passed:
        return NextAction(Act.HOLD, "the host restarted: its receipt is being renewed")
    if situation.blind:
        return NextAction(Act.HOLD, situation.blind)
    return NextAction(Act.STEP, "verified", step=1)


def _not_begun(rollout: Rollout, situation: Situation) -> NextAction | None:
    if situation.outdated:
        return NextAction(Act.DROP, situation.outdated)
    if rollout.approved_by is None:
        return NextAction(Act.HOLD, "it waits for approval", asks=True)
    if rollout.paused:
        return NextAction(Act.HOLD, f"paused: {rollout.paused}", asks=True)
    if situation.behind:
        return NextAction(Act.HOLD, f"it waits for {situation.behind}")
    return None


def _on_step(rollout: Rollout, situation: Situation, plan: Plan, now: datetime) -> NextAction:
    health = situation.health
    if health is None:
        return NextAction(Act.HOLD, "the guard has not looked yet")
    if health.verdict == GuardRuling.ROLL_BACK:
        return NextAction(Act.ROLL_BACK, health.reason or "the guard says so")
    if situation.blind and not rollout.withdrawn:
        return NextAction(Act.WITHDRAW, situation.blind)
    if rollout.paused:
        return NextAction(Act.HOLD, f"paused: {rollout.paused}", asks=True)
    waived = Waiver.SAMPLE_RATIO in rollout.waivers
    if health.verdict == GuardRuling.PAUSE and not waived:
        return NextAction(Act.PAUSE, health.reason or "the guard says so")
    return _unmet_minimum(rollout, health, plan, now) or _next_step(rollout, health, plan)


def _unmet_minimum(
    rollout: Rollout, health: Health, plan: Plan, now: datetime
) -> NextAction | None:
    """Hold for the minimum time, the minimum units and a veto, which every step needs (D10)."""
    step = plan.steps[rollout.step - 1]
    left = (rollout.step_started_at or now) + step.at_least - now
    if left > timedelta(0):
        return NextAction(Act.HOLD, f"step {rollout.step} takes {_in_seconds(left)} more")
    if health.units_this_step < step.units:
        seen = f"{health.units_this_step} of {step.units}"
        return NextAction(Act.HOLD, f"step {rollout.step} has seen {seen} units")
    if health.verdict == GuardRuling.VETO:
        return NextAction(Act.HOLD, health.reason or "a metric speaks against it")
    return None


def _next_step(rollout: Rollout, health: Health, plan: Plan) -> NextAction:
    """Advance where the next step needs no evidence, or where there is enough (D10)."""
    following = rollout.step + 1
    free = plan.weight(following) <= plan.guard.evidence_above
    if not (free or health.promotable or Waiver.EVIDENCE in rollout.waivers):
        return _hold_inconclusive(health, plan)
    if following > len(plan.steps):
        return NextAction(Act.PROMOTE, "every step is done")
    return NextAction(Act.STEP, f"step {rollout.step} is done", step=following)


def _hold_inconclusive(health: Health, plan: Plan) -> NextAction:
    evidence = f"promotion e {health.promotion_e:.2g} of {1 / plan.guard.alpha:.0f}"
    ask = plan.when_inconclusive == "ask"
    return NextAction(Act.HOLD, f"inconclusive: {evidence}", asks=ask)


def _after_promotion(
    rollout: Rollout, situation: Situation, plan: Plan, now: datetime
) -> NextAction:
    """Watch a live version against the holdback. A bad sign alerts; a person decides (D12)."""
    health = situation.health
    if not is_watched(rollout, plan, now=now) or health is None:
        return NextAction(Act.HOLD, "live")
    if health.rollback_e >= 1 / plan.guard.alpha and "alert" not in rollout.evidence:
        return NextAction(Act.ALERT, health.reason or "worse than the holdback")
    return NextAction(Act.HOLD, "live, compared with the holdback")


def is_watched(rollout: Rollout, plan: Plan, *, now: datetime) -> bool:
    """True while a promoted version is compared with a share kept on the one before it (D11)."""
    if rollout.state != RolloutState.LIVE or rollout.live_at is None or plan.holdback <= 0:
        return False
    return now < rollout.live_at + plan.keep_watching


def _in_seconds(left: timedelta) -> str:
    return f"{left.total_seconds():.0f} s"
