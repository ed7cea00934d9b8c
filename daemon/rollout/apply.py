"""Turn each decision into one change of rollouts and versions, written at once. Pure."""

# msgspec's replace has no types.
# pyright: reportUnknownMemberType=false

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from adaptd.daemon.domain.rollouts import Frozen, Rollout, Waiver
from adaptd.daemon.domain.states import AdapterState, RolloutState
from adaptd.daemon.rollout.decide import Act, NextAction
from adaptd.daemon.rollout.state import RolloutFacts
from adaptd.daemon.store.lifecycle.rollouts import AdapterMove, Change, RolloutMove

replace = msgspec.structs.replace


class By(msgspec.Struct, frozen=True, kw_only=True):
    """The author of a decision, with reason, time and evidence."""

    actor: str
    reason: str
    now: datetime
    evidence: dict[str, Any] = {}


def carry_out(
    present: RolloutFacts, rollout: Rollout, action: NextAction, by: By, frozen: Frozen
) -> Change:
    """The change that an action of `next_action` makes; HOLD makes none.

    `frozen` is kept at the first step only.
    """
    alert = replace(by, evidence=by.evidence | {"alert": by.now.isoformat()})
    makers: dict[Act, Callable[[], Change]] = {
        Act.VERIFY: lambda: _change_rollout(rollout, by, state=RolloutState.VERIFIED),
        Act.STEP: lambda: step(present, rollout, action.step, by, frozen),
        Act.PROMOTE: lambda: promote(present, rollout, by),
        Act.ROLL_BACK: lambda: take_back(present, rollout, by),
        Act.ABORT: lambda: abort(rollout, AdapterState.QUARANTINED, by),
        Act.DROP: lambda: abort(rollout, AdapterState.RETIRED, by),
        Act.PAUSE: lambda: pause(rollout, by, withdraw=False),
        Act.WITHDRAW: lambda: pause(rollout, by, withdraw=True),
        Act.ALERT: lambda: _change_rollout(rollout, alert),
    }
    return makers[action.act]()


def step(present: RolloutFacts, rollout: Rollout, number: int, by: By, frozen: Frozen) -> Change:
    """Give the canary a step's weight. Its first step fixes the version it is compared with."""
    values: dict[str, Any] = {
        "state": RolloutState.STEP,
        "step": number,
        "step_started_at": by.now,
    }
    if number > 1:
        return _change_rollout(rollout, by, **values)
    values |= {"previous": present.live(rollout.model), "frozen": frozen}
    return _change_rollout(
        rollout, by, [AdapterMove(rollout.candidate, AdapterState.CANARY)], **values
    )


def promote(present: RolloutFacts, rollout: Rollout, by: By) -> Change:
    """Make the candidate live.

    Live becomes last-good, last-good retires, and the rollout that brought live is superseded. A
    tainted version becomes `tainted`, which no rollback returns to.
    """
    moves = _hand_over(present, rollout)
    change = _change_rollout(rollout, by, moves, state=RolloutState.LIVE, live_at=by.now)
    older = [r for r in present.rollouts.values() if r.model == rollout.model]
    superseded = [
        RolloutMove(r, replace(r, state=RolloutState.SUPERSEDED, finished_at=by.now))
        for r in older
        if r.state == RolloutState.LIVE
    ]
    return replace(change, rollouts=[*superseded, *change.rollouts])


def _hand_over(present: RolloutFacts, rollout: Rollout) -> list[AdapterMove]:
    live, last_good = present.live(rollout.model), present.last_good(rollout.model)
    moves = []
    if last_good is not None and present.is_tainted(last_good):
        moves.append(AdapterMove(last_good, AdapterState.TAINTED))
    elif last_good is not None and not (live and present.is_tainted(live)):
        moves.append(AdapterMove(last_good, AdapterState.RETIRED))
    if live is not None:
        to = AdapterState.TAINTED if present.is_tainted(live) else AdapterState.LAST_GOOD
        moves.append(AdapterMove(live, to))
    return [*moves, AdapterMove(rollout.candidate, AdapterState.LIVE)]


def take_back(present: RolloutFacts, rollout: Rollout, by: By) -> Change:
    """Roll back: a canary's units return to live, a live version's to last-good.

    The version is quarantined.
    """
    moves = [AdapterMove(rollout.candidate, AdapterState.QUARANTINED)]
    if (
        rollout.state == RolloutState.LIVE
        and (good := present.last_good(rollout.model)) is not None
    ):
        moves.append(AdapterMove(good, AdapterState.LIVE))
    ended = {"state": RolloutState.ROLLED_BACK, "finished_at": by.now}
    return _change_rollout(rollout, by, moves, **ended)


def take_live_back(present: RolloutFacts, model: str, live: str, by: By) -> Change:
    """Roll back a live version whose rollout may already be over, after another rollback."""
    if (promoted := present.promoted(model)) is not None:
        return take_back(present, promoted, by)
    moves = [AdapterMove(live, AdapterState.QUARANTINED)]
    if (good := present.last_good(model)) is not None:
        moves.append(AdapterMove(good, AdapterState.LIVE))
    return _change_adapters(by, adapters=moves)


def abort(rollout: Rollout, to: AdapterState, by: By) -> Change:
    """End a rollout before it is live."""
    ended = {"state": RolloutState.ABORTED, "finished_at": by.now}
    return _change_rollout(rollout, by, [AdapterMove(rollout.candidate, to)], **ended)


def pause(rollout: Rollout, by: By, *, withdraw: bool) -> Change:
    """Stop advancing; with `withdraw` its traffic goes to live too."""
    return _change_rollout(rollout, by, paused=by.reason, withdrawn=withdraw or rollout.withdrawn)


def resume(rollout: Rollout, by: By, *, waive_sample_ratio: bool) -> Change:
    """Resume. After a withdrawal the step starts again, since its canary saw no traffic."""
    values: dict[str, Any] = {"paused": None, "withdrawn": False}
    if rollout.withdrawn:
        values["step_started_at"] = by.now
    if waive_sample_ratio:
        values["waivers"] = _add_waiver(rollout, Waiver.SAMPLE_RATIO)
    return _change_rollout(rollout, by, **values)


def approve(rollout: Rollout, by: By) -> Change:
    """Let a rollout begin."""
    return _change_rollout(rollout, by, approved_by=by.actor)


def waive_evidence(rollout: Rollout, by: By) -> Change:
    """Go on without the promotion test; every step keeps its time, its units and its guard."""
    return _change_rollout(rollout, by, waivers=_add_waiver(rollout, Waiver.EVIDENCE))


def _add_waiver(rollout: Rollout, waiver: Waiver) -> list[Waiver]:
    return sorted({*rollout.waivers, waiver})


def _change_rollout(
    rollout: Rollout, by: By, adapters: list[AdapterMove] | None = None, **values: Any
) -> Change:
    move = RolloutMove(rollout, replace(rollout, **values))
    return replace(_change_adapters(by, adapters=adapters or []), rollouts=[move])


def _change_adapters(by: By, *, adapters: list[AdapterMove]) -> Change:
    return Change(adapters=adapters, actor=by.actor, reason=by.reason, evidence=by.evidence)
