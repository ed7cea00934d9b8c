"""Findings in words: one line each, for logs, the command line and the run's history. Pure."""

from collections.abc import Sequence

from adaptd.daemon.domain.states import Verdict
from adaptd.daemon.evaluation.criteria import FEWEST_CLUSTERS, Criterion, CriterionResult
from adaptd.daemon.evaluation.pairs import Metric
from adaptd.daemon.stats.cluster_means import Evidence


def too_little(items: int, clusters: int, *, at_least: int) -> str:
    """Why a suite says nothing yet."""
    return (
        f"not enough evidence: {items} items in {clusters} groups,"
        f" needs {at_least} in {FEWEST_CLUSTERS}"
    )


def gain_words(criterion: Criterion, estimate: float, evidence: Evidence, alpha: float) -> str:
    """The gain, its interval and the test that decided."""
    gain = amount(estimate, criterion.metric)
    interval = (
        f"{amount(evidence.low, criterion.metric)} to {amount(evidence.high, criterion.metric)}"
    )
    unit = "points" if criterion.metric is Metric.EXACT_MATCH else "nats per token"
    allowed = "" if criterion.margin is None else f", may drop {_margin(criterion)}"
    return f"{gain} {unit} ({interval}){allowed}; p {evidence.p_above:.2g}, needs {alpha:.2g}"


def amount(gain: float, metric: Metric) -> str:
    """A gain in points of 100 for exact match, in nats per token for NLL, with its sign."""
    return f"{100 * gain:+.1f}" if metric is Metric.EXACT_MATCH else f"{gain:+.3f}"


def describe(verdict: Verdict, findings: Sequence[CriterionResult]) -> str:
    """One line on what decided: the criteria that failed, else those that are open, else all."""
    if verdict is not Verdict.PASSED:
        findings = _deciding(verdict, findings)
    return "; ".join(f"{f.metric} on {f.suite}: {f.reason}" for f in findings)


def _deciding(verdict: Verdict, findings: Sequence[CriterionResult]) -> Sequence[CriterionResult]:
    if verdict is Verdict.FAILED:
        dropped = [f for f in findings if f.role == "must_not_drop" and f.verdict is verdict]
        return dropped or [f for f in findings if f.role == "must_improve"]
    improved = any(f.verdict is Verdict.PASSED for f in findings if f.role == "must_improve")
    return [
        f
        for f in findings
        if f.verdict is not Verdict.PASSED and not (improved and f.role == "must_improve")
    ]


def _margin(criterion: Criterion) -> str:
    margin = criterion.margin or 0.0
    return f"{100 * margin:g}" if criterion.metric is Metric.EXACT_MATCH else f"{margin:g}"
