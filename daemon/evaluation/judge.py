"""Measurements in, verdict out: pass, fail or inconclusive, for each criterion and overall. Pure.

Worthless candidates pass with a chance of at most alpha over all candidates that meet the same
items: must_improve shares each candidate's part of alpha by Holm; must_not_drop needs none, for all
have to pass (intersection-union test: Berger 1982, Technometrics 24:295).
"""

from collections.abc import Mapping, Sequence
from math import isfinite

import msgspec
import numpy as np

from adaptd.daemon.domain.states import Verdict
from adaptd.daemon.evaluation.criteria import (
    FEWEST_CLUSTERS,
    Criterion,
    CriterionResult,
    Gate,
    Judgement,
)
from adaptd.daemon.evaluation.pairs import Metric, Pair, Suite, gains_by_cluster, item_gains, value
from adaptd.daemon.evaluation.power import items_still_needed
from adaptd.daemon.evaluation.wording import describe, gain_words, too_little
from adaptd.daemon.stats.alpha_spending import alpha_for, holm_levels
from adaptd.daemon.stats.cluster_means import Evidence, mean_evidence
from adaptd.daemon.stats.exact_match import count, improvement_evidence, margin_evidence


class Question(msgspec.Struct, frozen=True):
    """A criterion with all it is judged by. `alpha` is this candidate's part, before Holm."""

    criterion: Criterion
    pairs: Sequence[Pair]
    at_least: int
    k: int
    alpha: float

    @property
    def clusters(self) -> int:
        return len({pair.cluster for pair in self.pairs})

    @property
    def is_answerable(self) -> bool:
        return len(self.pairs) >= self.at_least and self.clusters >= FEWEST_CLUSTERS


def judge(
    gate: Gate, measured: Mapping[Suite, Sequence[Pair]], candidates: Mapping[Suite, int]
) -> Judgement:
    """Decide on a candidate.

    `candidates` says for every suite how many candidates have been scored on its items, this one
    included. A suite that was not measured counts as empty. Deterministic: same input, same report.
    """

    def question(criterion: Criterion) -> Question:
        k = candidates.get(criterion.suite, 1)
        pairs = measured.get(criterion.suite, ())
        return Question(criterion, pairs, gate.at_least, k, alpha_for(k, gate.alpha))

    improving = _answer_any([question(criterion) for criterion in gate.must_improve])
    keeping = [_answer(q, q.alpha) for q in map(question, gate.must_not_drop)]
    verdict = overall([f.verdict for f in improving], [f.verdict for f in keeping])
    findings = (*improving, *keeping)
    return Judgement(verdict, describe(verdict, findings), findings)


def overall(improving: Sequence[Verdict], keeping: Sequence[Verdict]) -> Verdict:
    """All that must not drop and one that must improve, where any is asked for.

    One proven drop fails the candidate; so does being proven worse wherever it should be better.
    """
    if Verdict.FAILED in keeping:
        return Verdict.FAILED
    if improving and all(verdict is Verdict.FAILED for verdict in improving):
        return Verdict.FAILED
    improved = not improving or Verdict.PASSED in improving
    kept = all(verdict is Verdict.PASSED for verdict in keeping)
    return Verdict.PASSED if improved and kept else Verdict.INCONCLUSIVE


def _answer_any(questions: Sequence[Question]) -> list[CriterionResult]:
    """Holm's levels depend on every p-value, so all are tested before any is judged."""
    p_values = [
        evidence(q.criterion, q.pairs, alpha=q.alpha).p_above if q.is_answerable else 1.0
        for q in questions
    ]
    levels = holm_levels(p_values, [q.alpha for q in questions])
    return [_answer(q, level) for q, level in zip(questions, levels, strict=True)]


def _answer(question: Question, level: float) -> CriterionResult:
    blank = _blank(question, level)
    if not question.is_answerable:
        return blank
    criterion, items = question.criterion, len(question.pairs)
    found = evidence(criterion, question.pairs, alpha=level)
    verdict = _verdict(found, level)
    estimate = blank.estimate or 0.0
    needed = items_still_needed(items, estimate, found.sd, criterion, alpha=level)
    return msgspec.structs.replace(
        blank,
        verdict=verdict,
        reason=gain_words(criterion, estimate, found, level),
        low=found.low if isfinite(found.low) else None,
        high=found.high if isfinite(found.high) else None,
        p=found.p_above,
        p_worse=found.p_below,
        method=found.method,
        items_needed=needed if verdict is Verdict.INCONCLUSIVE else None,
    )


def _blank(question: Question, level: float) -> CriterionResult:
    """The finding of a suite that is too small, with the means there are."""
    criterion, pairs, clusters = question.criterion, question.pairs, question.clusters
    metric, at_least = criterion.metric, question.at_least
    return CriterionResult(
        metric=metric,
        suite=criterion.suite,
        role=criterion.role,
        margin=criterion.margin,
        verdict=Verdict.INCONCLUSIVE,
        reason=too_little(len(pairs), clusters, at_least=at_least),
        items=len(pairs),
        clusters=clusters,
        k=question.k,
        alpha=level,
        candidate=_mean([value(pair.candidate, metric) for pair in pairs]),
        live=_mean([value(pair.live, metric) for pair in pairs]),
        estimate=_mean(list(item_gains(pairs, metric))),
        items_needed=max(at_least - len(pairs), FEWEST_CLUSTERS - clusters),
    )


def evidence(criterion: Criterion, pairs: Sequence[Pair], *, alpha: float) -> Evidence:
    """The test that fits the metric, the clusters and the question."""
    gains = gains_by_cluster(pairs, criterion.metric)
    if criterion.metric is Metric.NLL:
        return mean_evidence(gains, criterion.boundary, alpha=alpha)
    counts = count(item_gains(pairs, criterion.metric))
    if criterion.margin is None:
        return improvement_evidence(counts, gains, alpha=alpha)
    return margin_evidence(counts, gains, criterion.margin, alpha=alpha)


def _verdict(found: Evidence, level: float) -> Verdict:
    if found.p_above <= level:
        return Verdict.PASSED
    return Verdict.FAILED if found.p_below <= level else Verdict.INCONCLUSIVE


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
