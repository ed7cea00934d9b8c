"""Score and exact tests of wins against losses: known values, enumeration, error rates."""

from math import ceil, log

import numpy as np
import pytest
from scipy import stats

from adaptd.daemon.stats.matched_pairs import difference_p, score_bound, score_z, shortfall_p


def test_at_no_difference_the_score_is_mcnemars() -> None:
    assert float(score_z(12, 5, 80, 0.0)) == pytest.approx((12 - 5) / np.sqrt(12 + 5))


def test_the_score_uses_the_most_likely_share_of_losses_under_the_difference() -> None:
    """With nothing lost or won that share is the margin itself, so z = √(n m / (1 - m))."""
    assert float(score_z(0, 0, 200, -0.03)) == pytest.approx(np.sqrt(200 * 0.03 / 0.97))


def test_a_score_bound_is_where_the_score_reaches_the_quantile() -> None:
    low = score_bound(14, 6, 120, 0.025)

    assert float(score_z(14, 6, 120, low)) == pytest.approx(stats.norm.isf(0.025), abs=1e-6)
    assert low < (14 - 6) / 120


def tables(items: int) -> list[tuple[int, int]]:
    return [(w, c) for w in range(items + 1) for c in range(items + 1 - w)]


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (0, 2), (3, 1), (1, 4)])
def test_the_exact_p_is_the_worst_probability_of_a_table_as_good(wins: int, losses: int) -> None:
    items, margin = 12, 0.1
    scores = {table: float(score_z(*table, items, -margin)) for table in tables(items)}
    as_good = [t for t, score in scores.items() if score >= scores[wins, losses] - 1e-9]
    worst = max(
        sum(
            stats.multinomial.pmf([w, c, items - w - c], items, [q - margin, q, 1 - 2 * q + margin])
            for w, c in as_good
        )
        for q in np.linspace(margin, (1 + margin) / 2, 101)
    )

    assert difference_p(wins, losses, items, -margin) == pytest.approx(worst, abs=1e-9)


def test_a_drop_of_just_the_margin_passes_at_most_alpha_of_the_time() -> None:
    items, margin, alpha = 29, 0.1, 0.05
    passing = [t for t in tables(items) if difference_p(*t, items, -margin) <= alpha]
    for losing in (margin, 0.12, 0.2, 0.35, 0.5):
        outcome = stats.multinomial(items, [losing - margin, losing, 1 - 2 * losing + margin])
        chances = outcome.pmf([[w, c, items - w - c] for w, c in passing])
        assert chances.sum() <= alpha


def test_the_very_same_answers_prove_a_margin_only_from_ln_alpha_items_on() -> None:
    """A bootstrap or t interval would be the single point 0 and prove any margin with any items."""
    enough = ceil(log(0.05) / log(1 - 0.03))

    assert difference_p(0, 0, enough - 1, -0.03) > 0.05
    assert difference_p(0, 0, enough, -0.03) <= 0.05


def test_a_larger_drop_is_shown_by_the_opposite_test() -> None:
    assert shortfall_p(2, 30, 100, -0.03) < 0.001
    assert difference_p(2, 30, 100, -0.03) > 0.999


def test_large_suites_use_the_score_test_and_agree_with_the_exact_one() -> None:
    assert difference_p(60, 62, 1001, -0.02) == pytest.approx(
        difference_p(60, 62, 1000, -0.02), rel=0.15
    )
