"""The items that a gate needs before it can decide. Pure; used by `adaptd policy check` too."""

from collections.abc import Mapping

import msgspec

from adaptd.daemon.evaluation.criteria import Criterion, Gate
from adaptd.daemon.evaluation.suites import Suite
from adaptd.daemon.policy.model import MIN_HOLDOUT_GROUPS
from adaptd.daemon.stats.alpha_spending import alpha_for
from adaptd.daemon.stats.sample_sizes import items_for_mean

HOLDOUT_CANDIDATES = 8  # a holdout version closes after so many


def items_still_needed(
    items: int, estimate: float, sd: float, criterion: Criterion, *, alpha: float
) -> int | None:
    """More items until the criterion decides, either way, with 80 % chance if the estimate holds.

    `sd` has the clusters' design effect in it. None where the estimate lies on the boundary: no
    number would do.
    """
    distance = abs(estimate - criterion.boundary)
    if distance < 1e-9:
        return None
    needed = items_for_mean(distance, sd=sd, alpha=alpha)
    fewest = criterion.metric.test.fewest_items(criterion.margin, alpha=alpha)
    return max(max(needed, fewest) - items, 1)


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """The items that one criterion needs of its suite, for the first candidate and for the eighth.

    `usual_first` and `usual_eighth` assume what the metric's test assumes where nothing is known:
    that a tenth of the answers differ, or an SD of 0.5 nats per token. `candidates` is how many
    candidates with the very same answers can pass on these items, one after the other; None where
    no such bound exists.
    """

    criterion: Criterion
    items: int
    usual_first: int
    usual_eighth: int
    candidates: int | None = None


def gate_needs(gate: Gate, items: Mapping[Suite, int]) -> list[Need]:
    """The needs of every criterion. `items` counts those of each suite (fresh: `at_least`)."""
    return [
        _criterion_need(criterion, items.get(criterion.suite, 0), gate.alpha)
        for criterion in (*gate.must_improve, *gate.must_not_drop)
    ]


def gate_problems(gate: Gate, items: Mapping[Suite, int]) -> list[str]:
    """The causes that keep the gate from ever deciding, a line each; empty where it can decide.

    The golden file's size is fixed, so a margin it cannot prove for equal answers is a cause. The
    holdout grows past `at_least`, so for fresh only a minimum below 30 groups is.
    """
    needs = gate_needs(gate, items)
    found = [problem for need in needs if (problem := _need_problem(need, gate.at_least))]
    return list(dict.fromkeys(found))


def _criterion_need(criterion: Criterion, items: int, alpha: float) -> Need:
    metric, margin = criterion.metric, criterion.margin

    def usual_items(k: int) -> int:
        return metric.test.usual_items(margin, metric.usual_gain, alpha=alpha_for(k, alpha))

    return Need(
        criterion=criterion,
        items=items,
        usual_first=usual_items(1),
        usual_eighth=usual_items(HOLDOUT_CANDIDATES),
        candidates=metric.test.equal_candidates(margin, items, alpha=alpha),
    )


def _need_problem(need: Need, at_least: int) -> str | None:
    criterion = need.criterion
    least = max(at_least, MIN_HOLDOUT_GROUPS)
    if need.items < least:
        return (
            f"{criterion.suite} holds {need.items} items and a verdict needs {least}:"
            f" add {least - need.items}, or lower curate.holdout.at_least to no less than"
            f" {MIN_HOLDOUT_GROUPS}"
        )
    if criterion.suite is Suite.GOLDEN and need.candidates == 0:
        return (
            f"{need.items} golden items cannot show a drop of less than {criterion.margin}: even a"
            " candidate with the very same answers stays inconclusive. Use"
            f" {need.usual_first} items, or allow a larger drop"
        )
    return None
