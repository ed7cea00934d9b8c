"""The words of a judgement, and the report that the store keeps of it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from adaptd.daemon.domain.receipts import Receipt
from adaptd.daemon.domain.states import Verdict
from adaptd.daemon.evaluation.criteria import Criterion, CriterionResult, Judgement
from adaptd.daemon.evaluation.metrics import list_metrics
from adaptd.daemon.evaluation.pairs import Pair
from adaptd.daemon.evaluation.suites import Suite
from adaptd.daemon.policy.model import MIN_HOLDOUT_GROUPS
from adaptd.daemon.stats.cluster_means import Evidence


def shortage_reason(items: int, clusters: int, *, at_least: int) -> str:
    """The reason of a suite with too few items or groups."""
    return (
        f"not enough evidence: {items} items in {clusters} groups,"
        f" needs {at_least} in {MIN_HOLDOUT_GROUPS}"
    )


def gain_reason(criterion: Criterion, estimate: float, evidence: Evidence, alpha: float) -> str:
    """The gain, its interval and the p-value that decided."""
    metric, margin = criterion.metric, criterion.margin
    interval = f"{metric.gain_words(evidence.low)} to {metric.gain_words(evidence.high)}"
    allowed = "" if margin is None else f", may drop {metric.margin_words(margin)}"
    gain = f"{metric.gain_words(estimate)} {metric.unit} ({interval})"
    return f"{gain}{allowed}; p {evidence.p_above:.2g}, needs {alpha:.2g}"


def describe_verdict(verdict: Verdict, findings: Sequence[CriterionResult]) -> str:
    """One line on what decided: the criteria that failed, else those that are open, else all."""
    if verdict is not Verdict.PASSED:
        findings = _deciding_findings(verdict, findings)
    return "; ".join(f"{f.metric} on {f.suite}: {f.reason}" for f in findings)


def suite_means(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Every metric of both versions on one suite, whether the gate asks for it or not."""
    return {"items": len(pairs)} | {
        metric.name: {
            "candidate": float(np.mean([metric.value(pair.candidate) for pair in pairs])),
            "live": float(np.mean([metric.value(pair.live) for pair in pairs])),
        }
        for metric in list_metrics()
        if pairs
    }


def make_report(
    judgement: Judgement,
    measured: Mapping[Suite, Sequence[Pair]],
    *,
    left_out: Mapping[Suite, int],
    receipt: Receipt,
) -> dict[str, Any]:
    """The judgement with all its figures, ready for JSON.

    `left_out` counts items too long for the host; `suites` has the plain means of the others.
    """
    return msgspec.to_builtins(judgement) | {
        "suites": {suite.value: suite_means(pairs) for suite, pairs in measured.items()},
        "left_out": {suite.value: count for suite, count in left_out.items() if count},
        "receipt": {
            "instance": receipt.instance,
            "slope": receipt.slope,
            "residual_ratio": receipt.residual_ratio,
            "effect_ratio": receipt.effect_ratio,
        },
    }


def _deciding_findings(
    verdict: Verdict, findings: Sequence[CriterionResult]
) -> Sequence[CriterionResult]:
    if verdict is Verdict.FAILED:
        dropped = [f for f in findings if f.role == "must_not_drop" and f.verdict is verdict]
        return dropped or [f for f in findings if f.role == "must_improve"]
    improved = any(f.verdict is Verdict.PASSED for f in findings if f.role == "must_improve")
    return [
        f
        for f in findings
        if f.verdict is not Verdict.PASSED and not (improved and f.role == "must_improve")
    ]
