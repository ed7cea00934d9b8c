"""Alpha over candidates, and Holm over criteria."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptd.daemon.stats.alpha_spending import alpha_for, holm_levels


def test_all_candidates_together_never_spend_more_than_alpha() -> None:
    assert sum(alpha_for(k, 0.05) for k in range(1, 100_000)) == pytest.approx(0.05, rel=1e-4)
    assert alpha_for(1, 0.05) == pytest.approx(0.0304, abs=1e-4)
    assert alpha_for(8, 0.05) == pytest.approx(0.000475, abs=1e-6)


def test_candidates_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        alpha_for(0, 0.05)


def passes(p_values: list[float], levels: list[float]) -> list[bool]:
    return [p <= level for p, level in zip(p_values, holm_levels(p_values, levels), strict=True)]


def test_holm_asks_most_of_the_smallest_p() -> None:
    """Holm's own procedure: 0.01 <= 0.05/3, 0.02 <= 0.05/2, 0.06 > 0.05."""
    assert holm_levels([0.02, 0.01, 0.06], [0.05] * 3) == pytest.approx([0.025, 0.05 / 3, 0.05])
    assert passes([0.02, 0.01, 0.06], [0.05] * 3) == [True, True, False]


def test_holm_stops_at_the_first_that_fails() -> None:
    assert passes([0.03, 0.03, 0.04], [0.05] * 3) == [False, False, False]


def test_a_suite_with_less_alpha_left_is_held_to_its_own() -> None:
    assert passes([0.004, 0.004], [0.03, 0.003]) == [True, False]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_passes_all_that_bonferroni_passes_and_none_that_alone_would_fail(
    p_values: list[float],
) -> None:
    levels = [0.05] * len(p_values)
    for p, passed in zip(p_values, passes(p_values, levels), strict=True):
        assert passed or p > 0.05 / len(p_values)
        assert not passed or p <= 0.05
