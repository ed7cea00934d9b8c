"""Numbers of items: published tables and the exact test itself."""

import pytest

from adaptd.daemon.stats.alpha_spending import alpha_for
from adaptd.daemon.stats.matched_pairs import difference_p
from adaptd.daemon.stats.sample_sizes import (
    fewest_to_keep,
    items_for_mean,
    items_to_improve,
    items_to_keep,
)


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
def test_a_mean_needs_items_by_the_ratio_of_effect_to_spread(ratio: float, items: int) -> None:
    assert items_for_mean(ratio, sd=1.0, alpha=0.05) == pytest.approx(items, abs=1)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_fewest_items_are_the_first_that_the_exact_test_accepts(k: int) -> None:
    alpha = alpha_for(k, 0.05)
    fewest = fewest_to_keep(0.05, alpha=alpha)

    assert difference_p(0, 0, fewest, -0.05) <= alpha < difference_p(0, 0, fewest - 10, -0.05)
