"""Numbers of items: the research note's table, and gates that can never conclude."""

import pytest

from adaptd.daemon.evaluation.criteria import Criterion, Gate
from adaptd.daemon.evaluation.pairs import Metric, Suite
from adaptd.daemon.evaluation.power import (
    fewest_to_keep,
    gate_needs,
    gate_problems,
    items_for_nll,
    items_still_needed,
    items_to_improve,
    items_to_keep,
)
from adaptd.daemon.stats.alpha_spending import alpha_for
from adaptd.daemon.stats.matched_pairs import difference_p

BETTER_FRESH = Criterion(Metric.EXACT_MATCH, Suite.FRESH)


def a_gate(*keep: Criterion) -> Gate:
    return Gate((BETTER_FRESH,), keep, alpha=0.05, at_least=100)


@pytest.mark.parametrize(
    ("gain", "discordance", "items"),
    [(0.05, 0.05, 122), (0.03, 0.05, 342), (0.05, 0.1, 246), (0.03, 0.1, 685), (0.02, 0.2, 3090)],
)
def test_items_to_improve_are_those_of_connors_formula(
    gain: float, discordance: float, items: int
) -> None:
    assert items_to_improve(gain, discordance=discordance, alpha=0.05) == pytest.approx(
        items, abs=1
    )


@pytest.mark.parametrize(
    ("margin", "discordance", "items"),
    [(0.05, 0.05, 124), (0.03, 0.1, 687), (0.02, 0.1, 1546), (0.01, 0.2, 12366)],
)
def test_items_to_keep_are_those_of_the_margins_formula(
    margin: float, discordance: float, items: int
) -> None:
    assert items_to_keep(margin, discordance=discordance, alpha=0.05) == pytest.approx(items, abs=1)


@pytest.mark.parametrize(("ratio", "items"), [(0.1, 619), (0.2, 155), (0.3, 69)])
def test_nll_needs_items_by_the_ratio_of_effect_to_spread(ratio: float, items: int) -> None:
    assert items_for_nll(ratio, sd=1.0, alpha=0.05) == pytest.approx(items, abs=1)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_fewest_items_are_the_first_that_the_exact_test_accepts(k: int) -> None:
    alpha = alpha_for(k, 0.05)
    fewest = fewest_to_keep(0.05, alpha=alpha)

    assert difference_p(0, 0, fewest, -0.05) <= alpha < difference_p(0, 0, fewest - 10, -0.05)


def test_a_smaller_effect_needs_more_items_and_none_on_the_boundary() -> None:
    def needed(estimate: float) -> int | None:
        return items_still_needed(100, estimate, 0.3, BETTER_FRESH, alpha=0.03)

    assert (needed(0.02) or 0) > (needed(0.05) or 0) > 0
    assert needed(0.02) == needed(-0.02)
    assert needed(0.0) is None


def test_a_gate_with_enough_items_has_no_problem() -> None:
    gate = a_gate(Criterion(Metric.EXACT_MATCH, Suite.GOLDEN, 0.03))

    assert gate_problems(gate, {Suite.FRESH: 100, Suite.GOLDEN: 400}) == []


def test_a_golden_file_below_the_minimum_can_never_conclude() -> None:
    gate = a_gate(Criterion(Metric.NLL, Suite.GOLDEN, 0.05))

    (problem,) = gate_problems(gate, {Suite.FRESH: 100, Suite.GOLDEN: 60})

    assert "golden holds 60 items and a verdict needs 100: add 40" in problem


def test_a_margin_that_the_golden_file_cannot_prove_is_a_problem() -> None:
    gate = a_gate(Criterion(Metric.EXACT_MATCH, Suite.GOLDEN, 0.01))

    (problem,) = gate_problems(gate, {Suite.FRESH: 100, Suite.GOLDEN: 120})

    assert "120 golden items cannot show a drop of less than 0.01" in problem


def test_needs_say_how_many_candidates_a_golden_file_lasts_for() -> None:
    gate = a_gate(Criterion(Metric.EXACT_MATCH, Suite.GOLDEN, 0.03))

    _, golden = gate_needs(gate, {Suite.FRESH: 100, Suite.GOLDEN: 120})

    assert golden.candidates == 1
    assert golden.usual_eighth > golden.usual_first > 120
