"""The criteria of a policy's gate, and the results of a candidate. Pure."""

from typing import Literal, Self

import msgspec

from adaptd.daemon.domain.states import Verdict
from adaptd.daemon.evaluation.metrics import Metric, find_metric
from adaptd.daemon.evaluation.suites import Suite
from adaptd.daemon.policy.model import Policy

Role = Literal["must_improve", "must_not_drop"]


class Criterion(msgspec.Struct, frozen=True):
    """One line of the gate. `margin` is the drop that is still allowed: a share, or nats per token.

    None asks for an improvement instead.
    """

    metric: Metric
    suite: Suite
    margin: float | None = None

    @property
    def role(self) -> Role:
        return "must_improve" if self.margin is None else "must_not_drop"

    @property
    def boundary(self) -> float:
        """The gain that divides pass from fail."""
        return -(self.margin or 0.0)


class Gate(msgspec.Struct, frozen=True):
    """Any of `must_improve` (Holm), and all of `must_not_drop`. `at_least` items in every suite."""

    must_improve: tuple[Criterion, ...]
    must_not_drop: tuple[Criterion, ...]
    alpha: float
    at_least: int

    @classmethod
    def of(cls, policy: Policy) -> Self:
        """The gate of a policy."""
        return cls(
            must_improve=tuple(
                Criterion(find_metric(line.metric), Suite(line.on))
                for line in policy.gate.must_improve
            ),
            must_not_drop=tuple(
                Criterion(find_metric(line.metric), Suite(line.on), line.by)
                for line in policy.gate.must_not_drop
            ),
            alpha=policy.gate.alpha,
            at_least=policy.curate.holdout.at_least,
        )


class CriterionResult(msgspec.Struct, frozen=True, kw_only=True):
    """One criterion against its evidence. Figures are None where nothing was measured.

    `metric` is the metric's name; `candidate` and `live` are its means. `estimate` is the
    candidate's mean gain, above 0 better; `low` and `high` bound it at `alpha` each side. `p` is
    for the criterion, `p_worse` for its opposite; each is compared with `alpha`, which is what is
    left of the policy's after `k` candidates and Holm. Where p and interval differ by a hair, p
    decides. `items_needed` more items of this kind would decide, either way, with 80 % chance if
    the estimate holds.
    """

    metric: str
    suite: Suite
    role: Role
    margin: float | None
    verdict: Verdict
    reason: str
    items: int
    clusters: int
    k: int
    alpha: float
    candidate: float | None = None
    live: float | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_worse: float | None = None
    method: str | None = None
    items_needed: int | None = None


class Judgement(msgspec.Struct, frozen=True):
    """The verdict on a candidate, its reason in one line, and every criterion with its evidence."""

    verdict: Verdict
    reason: str
    findings: tuple[CriterionResult, ...]
