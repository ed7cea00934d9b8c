"""Means over clusters: the skewness-corrected t and its bound."""

import numpy as np
import pytest
from scipy import stats

from adaptd.daemon.stats.cluster_means import hall_bound, hall_p, item_sd, mean_evidence
from adaptd.daemon.stats.gains import Gains
from adaptd.daemon.stats.sign_flips import sign_flip_p


def single(values: np.ndarray) -> Gains:
    return Gains(values, np.ones(len(values)))


def test_without_skewness_halls_p_is_students() -> None:
    values = np.concatenate([np.linspace(-1, 1, 40), np.linspace(-1, 1, 40)]) + 0.1

    assert hall_p(values) == pytest.approx(
        stats.ttest_1samp(values, 0, alternative="greater").pvalue
    )


@pytest.mark.parametrize("seed", range(5))
def test_halls_bound_is_where_its_p_is_alpha(seed: int) -> None:
    values = np.random.default_rng(seed).lognormal(0, 1, 80)

    low = hall_bound(values, 0.02)

    assert hall_p(values - low) == pytest.approx(0.02, rel=1e-6)


def test_items_alone_in_their_clusters_have_the_plain_standard_deviation() -> None:
    values = np.random.default_rng(1).normal(0, 2, 50)

    assert item_sd(single(values)) == pytest.approx(np.std(values, ddof=1))


def test_clusters_that_agree_within_count_as_one_item_each() -> None:
    values = np.random.default_rng(1).normal(0, 2, 50)

    assert item_sd(Gains(values * 4, np.full(50, 4.0))) == pytest.approx(
        2 * item_sd(single(values))
    )


def test_rare_disasters_need_more_than_the_sign_flip_test() -> None:
    """A little better on 97 of 100 items and far worse on three: no proof of a higher mean."""
    values = np.array([0.05] * 97 + [-0.5, -0.7, -0.3])

    found = mean_evidence(single(values), 0.0, alpha=0.03)

    assert sign_flip_p(values) < 0.03 < found.p_above


def test_equal_scores_prove_a_margin_and_no_improvement() -> None:
    same = single(np.zeros(100))

    assert mean_evidence(same, -0.05, alpha=0.03).p_above < 1e-6
    assert mean_evidence(same, 0.0, alpha=0.03).p_above == 0.5
