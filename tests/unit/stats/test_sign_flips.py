"""The sign-flip test against brute force and, for single items, against the McNemar test."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from adaptd.daemon.stats.gains import Gains
from adaptd.daemon.stats.sign_flips import sign_flip_bound, sign_flip_p


def by_enumeration(sums: np.ndarray) -> float:
    """Mid-p over all 2^n signs."""
    totals = np.array([np.dot(signs, np.abs(sums)) for signs in product((1, -1), repeat=len(sums))])
    above, equal = totals > sums.sum() + 1e-9, np.abs(totals - sums.sum()) <= 1e-9
    return float((above.sum() + equal.sum() / 2) / len(totals))


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_whole_sums_give_the_p_of_all_sign_flips(sums: list[int]) -> None:
    values = np.array(sums, dtype=float)

    assert sign_flip_p(values) == pytest.approx(by_enumeration(values), abs=1e-12)


def test_fractional_sums_give_nearly_the_p_of_all_sign_flips() -> None:
    sums = np.random.default_rng(7).normal(0.3, 1, 12)

    assert sign_flip_p(sums) == pytest.approx(by_enumeration(sums), abs=2e-3)


@pytest.mark.parametrize(("wins", "losses"), [(9, 2), (0, 5), (60, 40), (7, 7), (0, 0)])
def test_single_items_give_the_mid_p_mcnemar_test(wins: int, losses: int) -> None:
    sums = np.array([1.0] * wins + [-1.0] * losses + [0.0] * 50)
    wins_if_equal = stats.binom(wins + losses, 0.5)

    p = sign_flip_p(sums)

    assert p == pytest.approx(wins_if_equal.sf(wins) + wins_if_equal.pmf(wins) / 2)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=40))
def test_the_two_directions_add_up_to_one(sums: list[float]) -> None:
    values = np.array(sums)

    assert sign_flip_p(values) + sign_flip_p(-values) == pytest.approx(1)


def test_the_bound_is_the_mean_at_which_p_crosses_alpha() -> None:
    generator = np.random.default_rng(3)
    sizes = generator.integers(1, 4, 60).astype(float)
    gains = Gains(generator.normal(0.2, 1, 60) * sizes, sizes)

    low = sign_flip_bound(gains, 0.03)

    assert sign_flip_p(gains.sums - (low + 1e-3) * sizes) > 0.03
    assert sign_flip_p(gains.sums - (low - 1e-3) * sizes) < 0.03


def test_a_handful_of_clusters_bounds_nothing_at_a_small_alpha() -> None:
    assert sign_flip_bound(Gains(np.ones(5), np.ones(5)), 0.001) == -np.inf
