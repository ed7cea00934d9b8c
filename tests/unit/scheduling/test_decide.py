"""The decision to start a run, and its words while it waits."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptd.daemon.domain.triggers import JudgedAnswers, UsableExamples
from adaptd.daemon.policy.model import Policy
from adaptd.daemon.policy.trigger import TriggerFacts
from adaptd.daemon.scheduling.decide import TriggerAction, decide, wants_count

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
ENOUGH = UsableExamples(new_examples=250, train=200, holdout_items=100, holdout_groups=60)
WINDOW = timedelta(hours=6)


def a_policy(*triggers: dict[str, Any]) -> Policy:
    when = {"any": list(triggers or [{"new_examples": 200}]), "cooldown": "6h"}
    head = {"version": 1, "model": "support", "base": "tiny"}
    return Policy.model_validate(head | {"train_when": when})


def facts(
    *,
    at_most_new: int = 250,
    judged: JudgedAnswers | None = None,
    crons_due: dict[str, datetime] | None = None,
    **changes: Any,
) -> TriggerFacts:
    read = {
        "new_examples": at_most_new,
        "negative_share": {WINDOW: judged} if judged else {},
        "cron": crons_due or {},
    }
    return TriggerFacts(**({"read": read, "usable": ENOUGH} | changes))


def usable(new_examples: int, train: int, items: int, groups: int) -> UsableExamples:
    return UsableExamples(
        new_examples=new_examples, train=train, holdout_items=items, holdout_groups=groups
    )


def judged(total: int, negative: int) -> JudgedAnswers:
    return JudgedAnswers(total=total, negative=negative)


def test_enough_new_examples_start_a_run_and_are_its_cause() -> None:
    decision = decide(a_policy(), facts(), now=NOW)

    assert decision.starts
    assert decision.trigger == {"kind": "new_examples", "seen": 250, "wanted": 200}
    assert decision.reason == "250 new examples (wanted 200)"


def test_too_few_new_examples_wait_with_the_number() -> None:
    decision = decide(a_policy(), facts(usable=None, at_most_new=199), now=NOW)
    assert (decision.action, decision.reason) == (TriggerAction.WAIT, "199 of 200 new examples")


def test_what_is_usable_counts_not_what_arrived() -> None:
    few = UsableExamples(new_examples=150, train=120, holdout_items=100, holdout_groups=60)
    assert decide(a_policy(), facts(usable=few), now=NOW).reason == "150 of 200 new examples"


def test_an_unfinished_run_comes_before_everything() -> None:
    decision = decide(a_policy(), facts(active_run="run-1"), now=NOW)
    assert decision.reason == "run run-1 is not finished"


def test_a_rollout_on_its_steps_is_waited_for_unless_live_is_tainted() -> None:
    policy, on_steps = a_policy(), facts(canary="support@v2-aaaaaaaa")
    decision = decide(policy, on_steps, now=NOW)
    assert decision.reason == "support@v2-aaaaaaaa is being rolled out"
    assert not wants_count(policy, on_steps, now=NOW)
    tainted = facts(canary="support@v2-aaaaaaaa", tainted_live="support@v1-bbbbbbbb")
    assert decide(policy, tainted, now=NOW).starts


def test_cooldown_counts_from_the_end_of_the_last_run() -> None:
    policy = a_policy()
    soon = decide(policy, facts(last_finished_at=NOW - timedelta(hours=5)), now=NOW)
    late = decide(policy, facts(last_finished_at=NOW - timedelta(hours=6)), now=NOW)
    assert (soon.reason, late.starts) == ("cooldown, 1:00:00 left", True)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (judged(99, 99), "99 of 100 judged answers"),
        (judged(100, 15), "negative share 15.0%, not above 15.0%"),
        (judged(0, 0), "0 of 100 judged answers"),
    ],
)
def test_a_negative_share_needs_enough_answers_and_a_higher_share(
    answers: JudgedAnswers, said: str
) -> None:
    policy = a_policy({"negative_share": {"above": "15%", "over": "6h"}})
    assert decide(policy, facts(judged=answers), now=NOW).reason == said


def test_a_high_negative_share_starts_a_run() -> None:
    policy = a_policy({"negative_share": {"above": "15%", "over": "6h"}})
    decision = decide(policy, facts(judged=judged(100, 16)), now=NOW)
    assert decision.starts
    assert decision.trigger["share"] == 0.16


def test_a_due_cron_starts_a_run_that_remembers_which_fire() -> None:
    policy = a_policy({"cron": "0 3 * * *"})
    due = {"0 3 * * *": datetime(2026, 11, 22, 3, 0, tzinfo=UTC)}
    decision = decide(policy, facts(crons_due=due), now=NOW)
    assert decision.starts
    assert decision.trigger["fired_at"] == "2026-11-22T03:00:00+00:00"
    assert decide(policy, facts(), now=NOW).reason == "cron 0 3 * * * is not due"


def test_any_trigger_is_enough() -> None:
    policy = a_policy({"new_examples": 900}, {"cron": "0 3 * * *"})
    assert decide(policy, facts(crons_due={"0 3 * * *": NOW}), now=NOW).trigger["kind"] == "cron"


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (usable(250, 0, 100, 60), "nothing to train on"),
        (usable(250, 200, 99, 60), "99 of 100 examples held back"),
        (usable(250, 200, 100, 29), "29 of 30 groups held back"),
    ],
)
def test_no_run_starts_without_enough_to_train_on_and_to_judge_with(
    found: UsableExamples, said: str
) -> None:
    assert decide(a_policy(), facts(usable=found), now=NOW).reason == said


@given(
    st.integers(0, 400),
    st.booleans(),
    st.integers(0, 12),
    st.builds(usable, st.integers(0, 400), *[st.integers(0, 200)] * 3),
)
def test_what_is_not_worth_counting_could_not_have_started(
    at_most: int, due: bool, hours_ago: int, found: UsableExamples
) -> None:
    policy = a_policy({"new_examples": 200}, {"cron": "0 3 * * *"})
    known = facts(
        usable=None,
        last_finished_at=NOW - timedelta(hours=hours_ago),
        at_most_new=max(at_most, found.new_examples),
        crons_due={"0 3 * * *": NOW} if due else {},
    )
    if decide(policy, replace(known, usable=found), now=NOW).starts:
        assert wants_count(policy, known, now=NOW)
    assert not decide(policy, known, now=NOW).starts
