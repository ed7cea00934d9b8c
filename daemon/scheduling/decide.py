"""The decision whether an alias trains now. Pure: facts and the time in, a reason out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from adaptd.daemon.domain.triggers import UsableExamples
from adaptd.daemon.policy.model import MIN_HOLDOUT_GROUPS, Holdout, Policy
from adaptd.daemon.policy.trigger import Trigger, TriggerFacts, TriggerOutcome
from adaptd.daemon.policy.triggers import TRIGGERS

Triggers = Sequence[Trigger[Any]]


class TriggerAction(StrEnum):
    START = "start"
    WAIT = "wait"


@dataclass(frozen=True)
class Decision:
    """One action and its reason. `trigger` is what a started run records of its cause."""

    action: TriggerAction
    reason: str
    trigger: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def starts(self) -> bool:
        return self.action is TriggerAction.START


def decide(
    policy: Policy, facts: TriggerFacts, *, now: datetime, triggers: Triggers = TRIGGERS
) -> Decision:
    """Start a run where a trigger holds and nothing forbids it; else say what it waits for.

    1. An unfinished run or a rollout on its steps ends first, then the cooldown.
    2. The first trigger that holds is the cause: those without a key, then the policy's in order.
    3. Usable examples are counted.
    4. Enough of them are on both sides, to train on and to judge with.
    """
    if (obstacle := _find_obstacle(policy, facts, now)) is not None:
        return _wait_for(obstacle)
    outcome = _ask_triggers(policy, facts, triggers)
    if outcome.cause is None:
        return _wait_for(outcome.reason)
    if facts.usable is None:
        return _wait_for("counting usable examples")
    if (shortage := _find_shortage(policy.curate.holdout, facts.usable)) is not None:
        return _wait_for(shortage)
    return Decision(TriggerAction.START, outcome.reason, outcome.cause)


def wants_count(
    policy: Policy, facts: TriggerFacts, *, now: datetime, triggers: Triggers = TRIGGERS
) -> bool:
    """Say whether counting usable examples, in a child process, could change the decision."""
    if _find_obstacle(policy, facts, now) is not None:
        return False
    # Without the count a trigger assumes that everything it heard of is usable.
    return _ask_triggers(policy, replace(facts, usable=None), triggers).cause is not None


def _find_obstacle(policy: Policy, facts: TriggerFacts, now: datetime) -> str | None:
    if facts.active_run is not None:
        return f"run {facts.active_run} is not finished"
    # A candidate is judged against live, so training is in vain while a rollout may change live.
    # What replaces a tainted version does not wait: a rollout may be paused for long.
    if facts.canary is not None and facts.tainted_live is None:
        return f"{facts.canary} is being rolled out"
    if facts.last_finished_at is None:
        return None
    left = facts.last_finished_at + policy.train_when.cooldown - now
    if left <= timedelta(0):
        return None
    return f"cooldown, {timedelta(seconds=round(left.total_seconds()))} left"


def _ask_triggers(policy: Policy, facts: TriggerFacts, triggers: Triggers) -> TriggerOutcome:
    """Return the first outcome with a cause, else one with everything that is waited for."""
    for trigger in triggers:
        if trigger.value is None and (outcome := trigger.holds(None, facts)).cause is not None:
            return outcome
    by_key = {trigger.key: trigger for trigger in triggers}
    waited_for: list[str] = []
    for entry in policy.train_when.any:
        outcome = by_key[entry.key].holds(entry.wanted, facts)
        if outcome.cause is not None:
            return outcome
        waited_for.append(outcome.reason)
    return TriggerOutcome("; ".join(waited_for))


def _find_shortage(holdout: Holdout, usable: UsableExamples) -> str | None:
    if usable.train == 0:
        return "nothing to train on"
    if usable.holdout_items < holdout.at_least:
        return f"{usable.holdout_items} of {holdout.at_least} examples held back"
    if usable.holdout_groups < MIN_HOLDOUT_GROUPS:
        return f"{usable.holdout_groups} of {MIN_HOLDOUT_GROUPS} groups held back"
    return None


def _wait_for(reason: str) -> Decision:
    return Decision(TriggerAction.WAIT, reason)
