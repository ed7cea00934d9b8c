"""What a rollout does next, as tables."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from adaptd.daemon.domain.receipts import Receipt
from adaptd.daemon.domain.rollouts import Rollout, Waiver
from adaptd.daemon.domain.states import RolloutState
from adaptd.daemon.rollout.decide import Act, NextAction, Situation, is_watched, next_action
from adaptd.daemon.rollout.guard import GuardRuling, Health
from adaptd.daemon.rollout.plan import Plan, StepPlan

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
replace = msgspec.structs.replace
PLAN = Plan(
    steps=tuple(
        StepPlan(weight=weight, at_least=30 * MINUTE, units=200)
        for weight in (0.05, 0.25, 0.5, 0.95)
    )
)
BEGUN = Rollout(
    model="support",
    candidate="support@v2-aaaaaaaa",
    approved_by="policy",
    policy_version=1,
    created_at=NOW - 60 * MINUTE,
)
PASSED = Receipt(adapter=BEGUN.candidate, instance="1", passed=True, created_at=NOW)
CLEAR = Health(verdict=GuardRuling.CLEAR, units_this_step=200)
SURE = replace(CLEAR, promotable=True, promotion_e=25.0)


def on_step(number: int, *, minutes: int = 30, **changes: object) -> Rollout:
    started = NOW - minutes * MINUTE
    return replace(BEGUN, state=RolloutState.STEP, step=number, step_started_at=started, **changes)


def act(rollout: Rollout, situation: Situation | None = None, plan: Plan = PLAN) -> NextAction:
    return next_action(rollout, situation or Situation(), plan, now=NOW)


def test_before_its_receipt_it_waits_for_it() -> None:
    assert act(BEGUN).act is Act.HOLD
    assert act(BEGUN, Situation(problem="rank too large")).reason == "rank too large"


def test_a_passed_receipt_verifies_it_and_a_failed_one_ends_it() -> None:
    assert act(BEGUN, Situation(receipt=PASSED)).act is Act.VERIFY
    failed = replace(PASSED, passed=False, reason="no effect")
    assert act(BEGUN, Situation(receipt=failed)) == NextAction(
        Act.ABORT, "no swap receipt: no effect"
    )


@pytest.mark.parametrize("state", [RolloutState.LOADING, RolloutState.VERIFIED])
@pytest.mark.parametrize(
    ("changes", "situation", "reason", "asks"),
    [
        ({"approved_by": None}, Situation(receipt=PASSED), "it waits for approval", True),
        ({"paused": "freeze"}, Situation(receipt=PASSED), "paused: freeze", True),
        ({}, Situation(receipt=PASSED, behind="rollout 1"), "it waits for rollout 1", False),
    ],
)
def test_it_does_not_begin_unapproved_paused_or_out_of_turn(
    state: RolloutState, changes: dict, situation: Situation, reason: str, asks: bool
) -> None:
    assert act(replace(BEGUN, state=state, **changes), situation) == NextAction(
        Act.HOLD, reason, asks=asks
    )


@pytest.mark.parametrize("state", [RolloutState.LOADING, RolloutState.VERIFIED])
def test_it_ends_before_it_begins_once_its_verdict_is_outdated(state: RolloutState) -> None:
    waiting = replace(BEGUN, state=state, approved_by=None)
    situation = Situation(receipt=PASSED, outdated="live is another")
    assert act(waiting, situation) == NextAction(Act.DROP, "live is another")


def test_verified_it_takes_the_first_step_unless_the_guard_would_be_blind() -> None:
    verified = replace(BEGUN, state=RolloutState.VERIFIED)
    assert act(verified, Situation(receipt=PASSED)) == NextAction(Act.STEP, "verified", step=1)
    assert act(verified, Situation(receipt=PASSED, blind="halted")).act is Act.HOLD
    assert act(verified, Situation()).act is Act.HOLD  # the host restarted meanwhile


@pytest.mark.parametrize(
    ("rollout", "health", "expected"),
    [
        (on_step(1, minutes=29), SURE, NextAction(Act.HOLD, "step 1 takes 60 s more")),
        (
            on_step(1),
            replace(SURE, units_this_step=199),
            NextAction(Act.HOLD, "step 1 has seen 199 of 200 units"),
        ),
        (
            on_step(1),
            replace(SURE, verdict=GuardRuling.VETO, reason="error speaks against it"),
            NextAction(Act.HOLD, "error speaks against it"),
        ),
        (on_step(1), CLEAR, NextAction(Act.STEP, "step 1 is done", step=2)),  # to 25 %: no evidence
        (on_step(2), CLEAR, NextAction(Act.HOLD, "inconclusive: promotion e 1 of 20")),
        (on_step(2), SURE, NextAction(Act.STEP, "step 2 is done", step=3)),
        (on_step(3), SURE, NextAction(Act.STEP, "step 3 is done", step=4)),
        (on_step(4), CLEAR, NextAction(Act.HOLD, "inconclusive: promotion e 1 of 20")),
        (on_step(4), SURE, NextAction(Act.PROMOTE, "every step is done")),
        (
            on_step(2, waivers=[Waiver.EVIDENCE]),
            CLEAR,
            NextAction(Act.STEP, "step 2 is done", step=3),
        ),
        (
            on_step(2, waivers=[Waiver.EVIDENCE], minutes=1),
            CLEAR,
            NextAction(Act.HOLD, "step 2 takes 1740 s more"),
        ),
    ],
)
def test_a_step_needs_time_units_no_veto_and_past_a_quarter_evidence(
    rollout: Rollout, health: Health, expected: NextAction
) -> None:
    assert act(rollout, Situation(health=health)) == expected


def test_an_override_skips_the_gate_and_never_a_step() -> None:
    forced = on_step(1, minutes=0, override_reason="hot fix")
    assert act(forced, Situation(health=SURE)).act is Act.HOLD


def test_without_a_look_nothing_moves() -> None:
    assert act(on_step(1)).act is Act.HOLD


def test_ask_names_a_person_where_hold_waits() -> None:
    asking = replace(PLAN, when_inconclusive="ask")
    assert act(on_step(2), Situation(health=CLEAR), asking).asks
    assert not act(on_step(2), Situation(health=CLEAR)).asks


BAD = Health(verdict=GuardRuling.ROLL_BACK, reason="worse than live on negative")


@pytest.mark.parametrize("changes", [{}, {"paused": "freeze"}, {"waivers": [Waiver.EVIDENCE]}])
@pytest.mark.parametrize("blind", [None, "halted"])
def test_a_bad_verdict_rolls_back_whatever_else_holds(changes: dict, blind: str | None) -> None:
    rollout = on_step(1, minutes=0, **changes)
    assert act(rollout, Situation(health=BAD, blind=blind)) == NextAction(
        Act.ROLL_BACK, "worse than live on negative"
    )


def test_a_blind_guard_takes_the_canarys_traffic_away_once() -> None:
    blind = Situation(health=SURE, blind="ingestion is halted")
    assert act(on_step(1), blind) == NextAction(Act.WITHDRAW, "ingestion is halted")
    assert act(on_step(1, paused="freeze"), blind).act is Act.WITHDRAW
    assert act(on_step(1, paused="blind", withdrawn=True), blind).act is Act.HOLD


def test_uneven_shares_pause_until_an_operator_has_resumed() -> None:
    uneven = Situation(health=replace(CLEAR, verdict=GuardRuling.PAUSE, reason="shares"))
    assert act(on_step(1), uneven) == NextAction(Act.PAUSE, "shares")
    assert act(on_step(1, paused="shares"), uneven).act is Act.HOLD
    assert act(on_step(1, waivers=[Waiver.SAMPLE_RATIO]), uneven).act is Act.STEP


def promoted(days: float, **changes: object) -> Rollout:
    live_at = NOW - timedelta(days=days)
    return replace(BEGUN, state=RolloutState.LIVE, step=4, live_at=live_at, **changes)


def test_after_promotion_a_bad_sign_alerts_once_and_changes_nothing() -> None:
    bad = Situation(health=replace(BAD, rollback_e=30.0))
    assert act(promoted(1), bad).act is Act.ALERT
    assert act(promoted(1, evidence={"alert": "t"}), bad).act is Act.HOLD
    assert act(promoted(8), bad).act is Act.HOLD  # no longer watched
    assert act(promoted(1), Situation(health=CLEAR)).act is Act.HOLD


def test_it_is_watched_as_long_as_the_plan_says_and_something_is_held_back() -> None:
    assert is_watched(promoted(6.9), PLAN, now=NOW)
    assert not is_watched(promoted(7), PLAN, now=NOW)
    assert not is_watched(promoted(1), replace(PLAN, holdback=0.0), now=NOW)
    assert not is_watched(on_step(4), PLAN, now=NOW)


@pytest.mark.parametrize("state", [s for s in RolloutState if s.is_final])
def test_what_is_final_stays_so(state: RolloutState) -> None:
    assert act(replace(BEGUN, state=state), Situation(health=BAD)).act is Act.HOLD
