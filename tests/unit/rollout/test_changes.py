"""What each decision changes, and in whose turn."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from adaptd.daemon.domain.rollouts import Frozen, LatencyLimit, Rollout, Waiver
from adaptd.daemon.domain.states import AdapterState, RolloutState
from adaptd.daemon.domain.transitions import check_adapter_move
from adaptd.daemon.rollout import apply as changes
from adaptd.daemon.rollout.apply import By, carry_out
from adaptd.daemon.rollout.decide import Act, NextAction
from adaptd.daemon.rollout.state import RolloutFacts
from adaptd.daemon.store.lifecycle.adapters import AdapterRow
from adaptd.daemon.store.lifecycle.rollouts import Change

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
V1, V2, V3 = "support@v1-11111111", "support@v2-22222222", "support@v3-33333333"
STATES = AdapterState
BY = By(actor="rollout", reason="because", now=NOW, evidence={"e": 1})
replace = msgspec.structs.replace
BEGUN = Rollout(
    rollout_id="rollout-3",
    model="support",
    candidate=V3,
    approved_by="policy",
    policy_version=1,
    created_at=NOW,
)
ON_STEP = replace(BEGUN, state=RolloutState.STEP, step=1, previous=V2)
LIVE = replace(BEGUN, rollout_id="rollout-2", candidate=V2, state=RolloutState.LIVE, live_at=NOW)


def version(name: str, state: AdapterState) -> AdapterRow:
    return AdapterRow(
        name=name,
        model="support",
        number=int(name[9]),
        content_hash="",
        path="",
        base_digest="",
        state=state,
        created_at=NOW,
    )


def world(*rollouts: Rollout, **versions: AdapterState) -> RolloutFacts:
    names = {"v1": V1, "v2": V2, "v3": V3}
    return RolloutFacts.of([version(names[key], s) for key, s in versions.items()], rollouts)


def states(before: RolloutFacts, change: Change) -> dict[str, AdapterState]:
    """The versions' states after a change, each move being a legal one."""
    for move in change.adapters:
        check_adapter_move(move.name, before.adapters[move.name].state, move.to)
    return {name: row.state for name, row in before.after(change).adapters.items()}


def test_the_first_step_makes_a_canary_and_freezes_what_it_is_compared_with() -> None:
    before = world(BEGUN, v2=STATES.LIVE, v3=STATES.CANDIDATE)
    frozen = Frozen(latency_limits=[LatencyLimit(4, 30.0)])
    change = carry_out(before, BEGUN, NextAction(Act.STEP, "verified", step=1), BY, frozen)
    after = change.rollouts[0].after
    assert (after.state, after.step, after.step_started_at) == (RolloutState.STEP, 1, NOW)
    assert (after.previous, after.frozen) == (V2, frozen)
    assert states(before, change)[V3] is STATES.CANARY


def test_a_later_step_keeps_what_was_frozen() -> None:
    begun = replace(ON_STEP, frozen=Frozen(latency_limits=[LatencyLimit(4, 30.0)]))
    before = world(begun, v2=STATES.LIVE, v3=STATES.CANARY)
    change = carry_out(before, begun, NextAction(Act.STEP, "done", step=2), BY, Frozen())
    assert change.rollouts[0].after.frozen == begun.frozen
    assert change.adapters == []


def test_promotion_hands_over_and_supersedes() -> None:
    before = world(LIVE, ON_STEP, v1=STATES.LAST_GOOD, v2=STATES.LIVE, v3=STATES.CANARY)
    change = carry_out(before, ON_STEP, NextAction(Act.PROMOTE, "done"), BY, Frozen())
    assert states(before, change) == {
        V1: STATES.RETIRED,
        V2: STATES.LAST_GOOD,
        V3: STATES.LIVE,
    }
    after = before.after(change)
    assert after.promoted("support") == replace(ON_STEP, state=RolloutState.LIVE, live_at=NOW)
    assert [m.after.state for m in change.rollouts] == [RolloutState.SUPERSEDED, RolloutState.LIVE]


def test_the_first_promotion_leaves_the_base_as_last_good() -> None:
    before = world(ON_STEP, v3=STATES.CANARY)
    after = before.after(carry_out(before, ON_STEP, NextAction(Act.PROMOTE, ""), BY, Frozen()))
    assert (after.live("support"), after.last_good("support")) == (V3, None)


def test_a_canary_taken_back_is_quarantined_and_live_stays() -> None:
    before = world(LIVE, ON_STEP, v2=STATES.LIVE, v3=STATES.CANARY)
    change = carry_out(before, ON_STEP, NextAction(Act.ROLL_BACK, ""), BY, Frozen())
    assert states(before, change) == {V2: STATES.LIVE, V3: STATES.QUARANTINED}
    assert change.rollouts[0].after.state is RolloutState.ROLLED_BACK
    assert before.after(change).promoted("support") == LIVE


def test_a_live_version_taken_back_gives_way_to_last_good_and_then_to_the_base() -> None:
    before = world(LIVE, v1=STATES.LAST_GOOD, v2=STATES.LIVE)
    change = changes.take_live_back(before, "support", V2, BY)
    assert states(before, change) == {V1: STATES.LIVE, V2: STATES.QUARANTINED}
    assert change.rollouts[0].after.state is RolloutState.ROLLED_BACK

    again = before.after(change)
    change = changes.take_live_back(again, "support", V1, BY)
    assert states(again, change)[V1] is STATES.QUARANTINED
    assert change.rollouts == []
    assert again.after(change).live("support") is None


@pytest.mark.parametrize(
    ("act", "paused", "withdrawn"),
    [(Act.PAUSE, "because", False), (Act.WITHDRAW, "because", True)],
)
def test_pausing_keeps_the_traffic_and_withdrawing_does_not(
    act: Act, paused: str, withdrawn: bool
) -> None:
    change = carry_out(world(ON_STEP), ON_STEP, NextAction(act, ""), BY, Frozen())
    after = change.rollouts[0].after
    assert (after.paused, after.withdrawn, after.state) == (paused, withdrawn, RolloutState.STEP)


def test_resuming_after_a_withdrawal_begins_the_step_anew() -> None:
    started = NOW - timedelta(hours=1)
    held = replace(ON_STEP, paused="x", withdrawn=True, step_started_at=started)
    after = changes.resume(held, BY, waive_sample_ratio=False).rollouts[0].after
    assert (after.paused, after.withdrawn, after.step_started_at) == (None, False, NOW)

    paused = replace(held, withdrawn=False)
    after = changes.resume(paused, BY, waive_sample_ratio=True).rollouts[0].after
    assert (after.step_started_at, after.waivers) == (started, [Waiver.SAMPLE_RATIO])


def test_a_failed_receipt_quarantines_and_an_operators_abort_retires() -> None:
    before = world(BEGUN, v3=STATES.CANDIDATE)
    change = carry_out(before, BEGUN, NextAction(Act.ABORT, "no effect"), BY, Frozen())
    assert states(before, change)[V3] is STATES.QUARANTINED
    assert states(before, changes.abort(BEGUN, STATES.RETIRED, BY))[V3] is STATES.RETIRED


def test_waivers_add_up() -> None:
    waived = replace(ON_STEP, waivers=[Waiver.SAMPLE_RATIO])
    after = changes.waive_evidence(waived, BY).rollouts[0].after
    assert after.waivers == [Waiver.EVIDENCE, Waiver.SAMPLE_RATIO]


def test_holding_is_no_change() -> None:
    with pytest.raises(KeyError):
        carry_out(world(BEGUN), BEGUN, NextAction(Act.HOLD, ""), BY, Frozen())


def rollout(number: int, model: str, **values: object) -> Rollout:
    created = NOW + timedelta(minutes=number)
    return replace(BEGUN, rollout_id=f"rollout-{number}", model=model, created_at=created, **values)


def test_one_rollout_at_a_time_has_the_server_and_the_oldest_is_next() -> None:
    moving = rollout(2, "a", state=RolloutState.STEP, step=1)
    older, newer = rollout(1, "b"), rollout(3, "c")
    all_three = world(moving, older, newer)
    assert all_three.behind(moving) == "rollout rollout-1 of b"  # asked only before its steps
    assert all_three.behind(older) == "rollout rollout-2 of a"
    assert world(older, newer).behind(older) is None
    assert world(older, newer).behind(newer) == "rollout rollout-1 of b"


@pytest.mark.parametrize("held", [{"approved_by": None}, {"paused": "x"}])
def test_who_may_not_begin_keeps_nobody_waiting(held: dict) -> None:
    older, newer = rollout(1, "b", **held), rollout(3, "c")
    assert world(older, newer).behind(newer) is None


def test_a_promoted_rollout_keeps_nobody_waiting() -> None:
    assert world(LIVE, BEGUN).behind(BEGUN) is None


def test_wanted_are_live_last_good_canary_and_whose_turn_it_is() -> None:
    before = world(BEGUN, v1=STATES.LAST_GOOD, v2=STATES.LIVE, v3=STATES.CANDIDATE)
    assert before.wanted() == [V2, V1, V3]
    unapproved = replace(BEGUN, approved_by=None)
    waits = world(unapproved, v1=STATES.RETIRED, v2=STATES.LIVE, v3=STATES.CANDIDATE)
    assert waits.wanted() == [V2]
