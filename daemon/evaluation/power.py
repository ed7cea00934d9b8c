"""How many items a gate needs before it can decide. Pure; used by `adaptd policy check`.

Chances are one-sided: alpha of passing without cause, 80 % of passing with it.
"""

from collections.abc import Mapping
from functools import lru_cache
from math import ceil, log, log1p, sqrt

import msgspec
from scipy import stats

from adaptd.daemon.evaluation.criteria import FEWEST_CLUSTERS, Criterion, Gate
from adaptd.daemon.evaluation.pairs import Metric, Suite
from adaptd.daemon.stats.alpha_spending import alpha_for
from adaptd.daemon.stats.matched_pairs import difference_p

POWER = 0.8
DISCORDANCE = 0.1  # share of items that two adapters answer differently, where nothing is known yet
NLL_SD = 0.5  # nats per token between two adapters on one item, where nothing is known yet
HOLDOUT_CANDIDATES = 8  # a holdout version closes after so many
_EXACT_ITEMS = 1000


def items_to_improve(gain: float, *, discordance: float = DISCORDANCE, alpha: float) -> int:
    """Items to see exact match rise by `gain` (0 to 1) where `discordance` of the answers differ.

    Connor 1987 (Biometrics 43:207): ((z_alpha √s + z_power √(s - gain²)) / gain)².
    """
    z_alpha, z_power = _quantiles(alpha)
    spread = z_alpha * sqrt(discordance) + z_power * sqrt(max(discordance - gain**2, 0))
    return max(ceil((spread / gain) ** 2), FEWEST_CLUSTERS)


def items_to_keep(margin: float, *, discordance: float = DISCORDANCE, alpha: float) -> int:
    """Items to show that an equal candidate is less than `margin` (0 to 1) below live.

    (z_alpha + z_power)² s / margin² (Miller 2024, arXiv 2411.00640), and never fewer than a
    candidate with the very same answers needs.
    """
    needed = (sum(_quantiles(alpha)) / margin) ** 2 * discordance
    return max(ceil(needed), fewest_to_keep(margin, alpha=alpha))


@lru_cache(maxsize=256)
def fewest_to_keep(margin: float, *, alpha: float) -> int:
    """Items below which not even a candidate with the very same answers passes the exact test.

    About ln(alpha) / ln(1 - margin), the rule of three's bound, from which the search starts.
    """
    if margin >= 1:
        return 1
    items = max(ceil(log(alpha) / log1p(-margin)), 1)
    while items <= _EXACT_ITEMS and difference_p(0, 0, items, -margin) > alpha:
        items += max(items // 50, 1)
    return items


def items_for_nll(effect: float, *, sd: float = NLL_SD, alpha: float) -> int:
    """Items to see a gain of `effect` nats per token, or to show an equal one within it.

    ((z_alpha + z_power) sd / effect)² (Miller 2024), `sd` being that of the paired difference.
    """
    return max(ceil((sum(_quantiles(alpha)) * sd / effect) ** 2), FEWEST_CLUSTERS)


def items_still_needed(
    items: int, estimate: float, sd: float, criterion: Criterion, *, alpha: float
) -> int | None:
    """More items until the criterion decides, either way, with 80 % chance if the estimate holds.

    None where the estimate lies on the boundary: no number would do. Same formula as
    `items_for_nll`, with the clusters' design effect in `sd`.
    """
    distance = abs(estimate - criterion.boundary)
    if distance < 1e-9:
        return None
    needed = ceil((sum(_quantiles(alpha)) * sd / distance) ** 2)
    if criterion.metric is Metric.EXACT_MATCH and criterion.margin:
        needed = max(needed, fewest_to_keep(criterion.margin, alpha=alpha))
    return max(needed - items, 1)


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What one criterion needs of its suite, for the first candidate and for the eighth.

    `usual_first` and `usual_eighth` assume that a tenth of the answers differ, or an SD of 0.5 nats
    per token. `candidates` is how many candidates with the very same answers can pass on these
    items, one after the other; None where no such bound exists.
    """

    criterion: Criterion
    items: int
    usual_first: int
    usual_eighth: int
    candidates: int | None = None


def gate_needs(
    gate: Gate, items: Mapping[Suite, int], *, improvement: float = 0.05, nll_gain: float = 0.1
) -> list[Need]:
    """What every criterion needs, given how many items its suite holds (fresh: `at_least`)."""
    return [
        Need(
            criterion=criterion,
            items=items.get(criterion.suite, 0),
            usual_first=_usual(criterion, alpha_for(1, gate.alpha), improvement, nll_gain),
            usual_eighth=_usual(
                criterion, alpha_for(HOLDOUT_CANDIDATES, gate.alpha), improvement, nll_gain
            ),
            candidates=_candidates(criterion, items.get(criterion.suite, 0), gate.alpha),
        )
        for criterion in (*gate.must_improve, *gate.must_not_drop)
    ]


def gate_problems(gate: Gate, items: Mapping[Suite, int]) -> list[str]:
    """Why the gate can never conclude, a line for each cause; empty where it can.

    The golden file's size is fixed, so a margin it cannot prove for equal answers is a cause. The
    holdout grows past `at_least`, so for fresh only a minimum below 30 groups is.
    """
    needs = gate_needs(gate, items)
    found = [problem for need in needs if (problem := _problem(need, gate.at_least))]
    return list(dict.fromkeys(found))


def _problem(need: Need, at_least: int) -> str | None:
    criterion = need.criterion
    least = max(at_least, FEWEST_CLUSTERS)
    if need.items < least:
        return (
            f"{criterion.suite} holds {need.items} items and a verdict needs {least}:"
            f" add {least - need.items}, or lower curate.holdout.at_least to no less than"
            f" {FEWEST_CLUSTERS}"
        )
    if criterion.suite is Suite.GOLDEN and need.candidates == 0:
        return (
            f"{need.items} golden items cannot show a drop of less than {criterion.margin}: even a"
            " candidate with the very same answers stays inconclusive. Use"
            f" {need.usual_first} items, or allow a larger drop"
        )
    return None


def _usual(criterion: Criterion, alpha: float, improvement: float, nll_gain: float) -> int:
    if criterion.metric is Metric.NLL:
        return items_for_nll(criterion.margin or nll_gain, alpha=alpha)
    if criterion.margin is None:
        return items_to_improve(improvement, alpha=alpha)
    return items_to_keep(criterion.margin, alpha=alpha)


def _candidates(criterion: Criterion, items: int, alpha: float) -> int | None:
    if criterion.metric is Metric.NLL or not criterion.margin:
        return None
    p_value = difference_p(0, 0, items, -min(criterion.margin, 0.99)) if items else 1.0
    k = 0
    while p_value <= alpha_for(k + 1, alpha) and k < 10_000:
        k += 1
    return k


def _quantiles(alpha: float) -> tuple[float, float]:
    return float(stats.norm.isf(alpha)), float(stats.norm.ppf(POWER))
