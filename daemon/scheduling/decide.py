"""Whether an alias should train now. Pure: facts and the time in, a decision with a reason out."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from adaptd.daemon.policy.model import MIN_HOLDOUT_GROUPS, Holdout, NegativeShare, Policy


class TriggerAction(StrEnum):
    START = "start"
    WAIT = "wait"


@dataclass(frozen=True)
class Judged:
    """Answers of a window that somebody rated or corrected, and how many of them badly."""

    total: int
    negative: int


@dataclass(frozen=True)
class Usable:
    """What a snapshot taken now would hold, after selection, caps and quarantine."""

    new_examples: int
    train: int
    holdout_items: int
    holdout_groups: int


@dataclass(frozen=True)
class Facts:
    """What is known of one alias. `judged` is by window, `crons_due` by expression.

    `usable` is None where it was not worth counting; `at_most_new` is the cheap count that says so.
    `tainted_live` is the live version where it learnt from a person who was erased. `canary` is the
    version whose rollout is on its steps.
    """

    active_run: str | None = None
    last_finished_at: datetime | None = None
    at_most_new: int = 0
    judged: Mapping[timedelta, Judged] = field(default_factory=dict)
    crons_due: Mapping[str, datetime] = field(default_factory=dict)
    usable: Usable | None = None
    tainted_live: str | None = None
    canary: str | None = None


@dataclass(frozen=True)
class Decision:
    """What to do and why. `trigger` is what a started run records of its cause."""

    action: TriggerAction
    reason: str
    trigger: Mapping[str, Any] = field(default_factory=dict)

    @property
    def starts(self) -> bool:
        return self.action is TriggerAction.START


def decide(policy: Policy, facts: Facts, *, now: datetime) -> Decision:
    """Start a run where a trigger holds and nothing forbids it; else say what is waited for."""
    if (busy := _busy(facts)) is not None:
        return _wait(busy)
    if (left := _cooldown_left(policy, facts, now)) > timedelta(0):
        return _wait(f"cooldown, {_whole(left)} left")
    trigger, why_not = _first_trigger(policy, facts)
    if trigger is None:
        return _wait("; ".join(why_not))
    if facts.usable is None:
        return _wait("counting usable examples")
    if (missing := _missing(policy.curate.holdout, facts.usable)) is not None:
        return _wait(missing)
    return Decision(TriggerAction.START, _words(trigger), trigger)


def wants_count(policy: Policy, facts: Facts, *, now: datetime) -> bool:
    """Whether counting usable examples could change the decision: it takes a child process."""
    if _busy(facts) is not None or _cooldown_left(policy, facts, now) > timedelta(0):
        return False
    optimist = Usable(facts.at_most_new, 1, policy.curate.holdout.at_least, MIN_HOLDOUT_GROUPS)
    return decide(policy, replace(facts, usable=optimist), now=now).starts


def _busy(facts: Facts) -> str | None:
    """What has to end first.

    A candidate is judged against what is live, so it would be made in vain while a rollout may
    change that. What replaces a tainted version does not wait: a rollout may be paused for long.
    """
    if facts.active_run is not None:
        return f"run {facts.active_run} is not finished"
    if facts.canary is not None and facts.tainted_live is None:
        return f"{facts.canary} is being rolled out"
    return None


def _cooldown_left(policy: Policy, facts: Facts, now: datetime) -> timedelta:
    if facts.last_finished_at is None:
        return timedelta(0)
    return facts.last_finished_at + policy.train_when.cooldown - now


def _first_trigger(policy: Policy, facts: Facts) -> tuple[dict[str, Any] | None, list[str]]:
    if facts.tainted_live is not None:  # whatever the policy waits for: it has to go
        return {"kind": "tainted", "version": facts.tainted_live}, []
    why_not: list[str] = []
    for trigger in policy.train_when.any:
        if trigger.new_examples is not None:
            found, why = _new_examples(trigger.new_examples, facts)
        elif trigger.negative_share is not None:
            found, why = _negative_share(trigger.negative_share, facts)
        else:
            found, why = _cron(str(trigger.cron), facts)
        if found is not None:
            return found, []
        why_not.append(why)
    return None, why_not


def _new_examples(wanted: int, facts: Facts) -> tuple[dict[str, Any] | None, str]:
    seen = facts.usable.new_examples if facts.usable else facts.at_most_new
    if seen < wanted:
        return None, f"{seen} of {wanted} new examples"
    return {"kind": "new_examples", "seen": seen, "wanted": wanted}, ""


def _negative_share(wanted: NegativeShare, facts: Facts) -> tuple[dict[str, Any] | None, str]:
    judged = facts.judged.get(wanted.over, Judged(0, 0))
    if judged.total < wanted.at_least:
        return None, f"{judged.total} of {wanted.at_least} judged answers"
    share = judged.negative / judged.total
    if share <= wanted.above:
        return None, f"negative share {share:.1%}, not above {wanted.above:.1%}"
    shown = {"share": round(share, 4), "above": wanted.above, "judged": judged.total}
    return {"kind": "negative_share", **shown}, ""


def _cron(expression: str, facts: Facts) -> tuple[dict[str, Any] | None, str]:
    due = facts.crons_due.get(expression)
    if due is None:
        return None, f"cron {expression} is not due"
    return {"kind": "cron", "cron": expression, "fired_at": due.isoformat()}, ""


def _missing(holdout: Holdout, usable: Usable) -> str | None:
    if usable.train == 0:
        return "nothing to train on"
    if usable.holdout_items < holdout.at_least:
        return f"{usable.holdout_items} of {holdout.at_least} examples held back"
    if usable.holdout_groups < MIN_HOLDOUT_GROUPS:
        return f"{usable.holdout_groups} of {MIN_HOLDOUT_GROUPS} groups held back"
    return None


def _words(trigger: Mapping[str, Any]) -> str:
    kind = trigger["kind"]
    if kind == "tainted":
        return f"{trigger['version']} learnt from a person who was erased"
    if kind == "new_examples":
        return f"{trigger['seen']} new examples (wanted {trigger['wanted']})"
    if kind == "negative_share":
        return f"negative share {trigger['share']:.1%} of {trigger['judged']} judged answers"
    return f"cron {trigger['cron']} was due at {trigger['fired_at']}"


def _wait(reason: str) -> Decision:
    return Decision(TriggerAction.WAIT, reason)


def _whole(left: timedelta) -> str:
    return str(timedelta(seconds=round(left.total_seconds())))
