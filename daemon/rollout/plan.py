"""A rollout's plan: the demands of its policy version, as plain values for the pure rules."""

from datetime import timedelta
from typing import Literal

import msgspec

from adaptd.daemon.domain.rollouts import GuardMetric
from adaptd.daemon.policy.model import Guard, Policy

FUSE_ERRORS = 5  # hard errors in a row on the canary that end it at once, outside alpha
SAMPLE_RATIO_ALPHA = 0.001
EVERYTHING = 1.0  # the weight after the last step


class StepPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One canary step: its share of units, and how long and how many canary units it needs."""

    weight: float
    at_least: timedelta = timedelta(0)
    units: int = 0


class GuardRules(msgspec.Struct, frozen=True, kw_only=True):
    """Metrics that the guard watches, and its error rates.

    `ratio`: what promotion must rule out.
    """

    watch: tuple[GuardMetric, ...] = (GuardMetric.NEGATIVE, GuardMetric.ERROR, GuardMetric.LATENCY)
    promote_on: tuple[GuardMetric, ...] = (GuardMetric.NEGATIVE,)
    alpha: float = 0.05
    ratio: float = 1.5
    maturity: timedelta = timedelta(hours=24)
    evidence_above: float = 0.25


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a rollout follows; fixed by the policy version it began with."""

    steps: tuple[StepPlan, ...]
    guard: GuardRules = GuardRules()
    split: Literal["conversation", "user"] = "conversation"
    holdback: float = 0.05
    when_inconclusive: Literal["hold", "ask"] = "hold"
    keep_watching: timedelta = timedelta(days=7)

    def weight(self, step: int) -> float:
        """The canary's share at a step, counted from 1; 0 before the first, 1 after the last."""
        if step < 1:
            return 0.0
        return self.steps[step - 1].weight if step <= len(self.steps) else EVERYTHING


def plan_of(policy: Policy) -> Plan:
    """The plan that a policy version asks for."""
    rules = policy.rollout
    return Plan(
        steps=tuple(
            StepPlan(weight=step.weight, at_least=step.at_least, units=step.units)
            for step in rules.steps
        ),
        guard=_guard_rules(rules.guard),
        split=rules.split,
        holdback=rules.holdback,
        when_inconclusive=rules.when_inconclusive,
        keep_watching=rules.keep_watching,
    )


def _guard_rules(guard: Guard) -> GuardRules:
    return GuardRules(
        watch=tuple(GuardMetric(name) for name in guard.watch),
        promote_on=tuple(GuardMetric(name) for name in guard.promote_on),
        alpha=guard.alpha,
        ratio=guard.ratio,
        maturity=guard.maturity,
        evidence_above=guard.evidence_above,
    )
