"""Measurements in, verdict out: pass, fail or inconclusive, for each criterion and overall. Pure.

Worthless candidates pass with a chance of at most alpha over all candidates that meet the same
items: must_improve shares each candidate's part of alpha by Holm; must_not_drop needs no sharing,
for all criteria have to pass (intersection-union test: Berger 1982, Technometrics 24:295).
"""

from collections.abc import Mapping, Sequence
from math import isfinite

import msgspec
import numpy as np

from adaptd.daemon.domain.states import Verdict
from adaptd.daemon.evaluation.criteria import Criterion, CriterionResult, Gate, Judgement
from adaptd.daemon.evaluation.pairs import Pair, gains_by_cluster, item_gains
from adaptd.daemon.evaluation.power import items_still_needed
from adaptd.daemon.evaluation.report import describe_verdict, gain_reason, shortage_reason
from adaptd.daemon.evaluation.suites import Suite
from adaptd.daemon.policy.model import MIN_HOLDOUT_GROUPS
from adaptd.daemon.stats.alpha_spending import alpha_for, holm_levels
from adaptd.daemon.stats.cluster_means import Evidence


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
        return len(self.pairs) >= self.at_least and self.clusters >= MIN_HOLDOUT_GROUPS


def judge(
    gate: Gate, measured: Mapping[Suite, Sequence[Pair]], candidates: Mapping[Suite, int]
) -> Judgement:
    """Decide on a candidate.

    1. Give every criterion the candidate's part of alpha on its suite.
    2. Test all of must_improve, share that part by Holm, and judge each.
    3. Judge each of must_not_drop at the whole part.
    4. Combine the verdicts, and say in one line what decided.

    `candidates` says for every suite how many candidates have been scored on its items, this one
    included. A suite that was not measured counts as empty. Deterministic: same input, same report.
    """

    def make_question(criterion: Criterion) -> Question:
        k = candidates.get(criterion.suite, 1)
        pairs = measured.get(criterion.suite, ())
        return Question(criterion, pairs, gate.at_least, k, alpha_for(k, gate.alpha))

    improving = _answer_any([make_question(criterion) for criterion in gate.must_improve])
    keeping = [_answer_question(q, q.alpha) for q in map(make_question, gate.must_not_drop)]
    verdict = combine_verdicts([f.verdict for f in improving], [f.verdict for f in keeping])
    findings = (*improving, *keeping)
    return Judgement(verdict, describe_verdict(verdict, findings), findings)


def combine_verdicts(improving: Sequence[Verdict], keeping: Sequence[Verdict]) -> Verdict:
    """Pass with all that must not drop and, where any is asked for, one that must improve.

    One proven drop fails the candidate. So does a candidate that is proven worse in everything that
    should improve.
    """
    if Verdict.FAILED in keeping:
        return Verdict.FAILED
    if improving and all(verdict is Verdict.FAILED for verdict in improving):
        return Verdict.FAILED
    improved = not improving or Verdict.PASSED in improving
    kept = all(verdict is Verdict.PASSED for verdict in keeping)
    return Verdict.PASSED if improved and kept else Verdict.INCONCLUSIVE


def _answer_any(questions: Sequence[Question]) -> list[CriterionResult]:
    # Holm's levels depend on every p-value, so all are tested before any is judged.
    p_values = [
        weigh_evidence(q.criterion, q.pairs, alpha=q.alpha).p_above if q.is_answerable else 1.0
        for q in questions
    ]
    levels = holm_levels(p_values, [q.alpha for q in questions])
    return [_answer_question(q, level) for q, level in zip(questions, levels, strict=True)]


def _answer_question(question: Question, level: float) -> CriterionResult:
    blank = _unanswered_result(question, level)
    if not question.is_answerable:
        return blank
    criterion, items = question.criterion, len(question.pairs)
    found = weigh_evidence(criterion, question.pairs, alpha=level)
    verdict = _decide_verdict(found, level)
    estimate = blank.estimate or 0.0
    needed = items_still_needed(items, estimate, found.sd, criterion, alpha=level)
    return msgspec.structs.replace(
        blank,
        verdict=verdict,
        reason=gain_reason(criterion, estimate, found, level),
        low=found.low if isfinite(found.low) else None,
        high=found.high if isfinite(found.high) else None,
        p=found.p_above,
        p_worse=found.p_below,
        method=found.method,
        items_needed=needed if verdict is Verdict.INCONCLUSIVE else None,
    )


def _unanswered_result(question: Question, level: float) -> CriterionResult:
    """The result of a suite that is too small, with the means there are."""
    criterion, pairs, clusters = question.criterion, question.pairs, question.clusters
    metric, at_least = criterion.metric, question.at_least
    return CriterionResult(
        metric=metric.name,
        suite=criterion.suite,
        role=criterion.role,
        margin=criterion.margin,
        verdict=Verdict.INCONCLUSIVE,
        reason=shortage_reason(len(pairs), clusters, at_least=at_least),
        items=len(pairs),
        clusters=clusters,
        k=question.k,
        alpha=level,
        candidate=_mean_value([metric.value(pair.candidate) for pair in pairs]),
        live=_mean_value([metric.value(pair.live) for pair in pairs]),
        estimate=_mean_value(list(item_gains(pairs, metric))),
        items_needed=max(at_least - len(pairs), MIN_HOLDOUT_GROUPS - clusters),
    )


def weigh_evidence(criterion: Criterion, pairs: Sequence[Pair], *, alpha: float) -> Evidence:
    """The evidence of the metric's own test on one criterion."""
    metric = criterion.metric
    gains = gains_by_cluster(pairs, metric)
    return metric.test.weigh_gains(item_gains(pairs, metric), gains, criterion.margin, alpha=alpha)


def _decide_verdict(found: Evidence, level: float) -> Verdict:
    if found.p_above <= level:
        return Verdict.PASSED
    return Verdict.FAILED if found.p_below <= level else Verdict.INCONCLUSIVE


def _mean_value(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
