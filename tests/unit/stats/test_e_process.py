"""The engine by enumeration: one step under the null has mean at most 1, and states just add."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptd.daemon.stats.e_process import (
    TWO_SIDED_GRID,
    better_grid,
    e_value,
    log_steps,
    worse_grid,
)

WEIGHTS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.8, 0.95, 0.999)
NULL_RATIOS = (1.0, 1.1, 1.5, 3.0)


def means(null_ratio: float, grid: tuple[float, ...], true_ratio: float) -> np.ndarray:
    """The mean of one step's factor per (weight, grid point), over both arms of an event."""
    weights = np.array(WEIGHTS)
    factors = np.exp(log_steps(weights, null_ratio=null_ratio, grid=grid))
    on_canary = (weights * true_ratio / (weights * true_ratio + 1 - weights))[:, None]
    return (1 - on_canary) * factors[:, 0] + on_canary * factors[:, 1]


@pytest.mark.parametrize("null_ratio", NULL_RATIOS)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 1.0])
def test_a_step_against_worse_has_mean_at_most_one_for_every_harmless_ratio(
    null_ratio: float, share: float
) -> None:
    mean = means(null_ratio, worse_grid(null_ratio), null_ratio * share)
    assert (mean <= 1 + 1e-12).all()


@pytest.mark.parametrize("null_ratio", NULL_RATIOS)
@pytest.mark.parametrize("times", [1.0, 1.2, 3.0, 50.0])
def test_a_step_for_promotion_has_mean_at_most_one_for_every_harmful_ratio(
    null_ratio: float, times: float
) -> None:
    mean = means(null_ratio, better_grid(null_ratio), null_ratio * times)
    assert (mean <= 1 + 1e-12).all()


@pytest.mark.parametrize(
    ("null_ratio", "grid"),
    [*((r, worse_grid(r)) for r in NULL_RATIOS), (1.5, better_grid(1.5)), (1.0, TWO_SIDED_GRID)],
)
def test_at_the_null_itself_a_step_has_mean_one(null_ratio: float, grid: tuple[float, ...]) -> None:
    assert means(null_ratio, grid, null_ratio) == pytest.approx(1)


def test_the_sample_ratio_grid_looks_both_ways() -> None:
    assert min(TWO_SIDED_GRID) < 1 < max(TWO_SIDED_GRID)


Counted = tuple[float, bool, int]  # the weight, the arm, and how many events


def weigh(*counted: Counted, null_ratio: float = 1.0, grid: tuple[float, ...]) -> float:
    weights, on_canary, events = zip(*counted, strict=True) if counted else ((), (), ())
    return e_value(weights, on_canary, events, null_ratio=null_ratio, grid=grid)


EVENTS = st.lists(
    st.tuples(st.sampled_from(WEIGHTS), st.booleans(), st.integers(1, 5)), max_size=20
)


@given(EVENTS, st.randoms())
def test_order_and_batches_of_events_do_not_matter(events: list, random: object) -> None:
    single = [(weight, arm, 1) for weight, arm, n in events for _ in range(n)]
    random.shuffle(single)

    one = weigh(*events, grid=worse_grid(1.0))
    other = weigh(*single, grid=worse_grid(1.0))
    assert one == pytest.approx(other)


def test_without_events_there_is_no_evidence() -> None:
    assert weigh(grid=worse_grid(1.0)) == 1


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_events_that_only_one_arm_could_have_say_nothing(weight: float) -> None:
    assert weigh((weight, weight == 1.0, 1000), grid=worse_grid(1.0)) == pytest.approx(1)


def test_overwhelming_evidence_stays_a_number() -> None:
    value = weigh((0.5, True, 100_000), grid=worse_grid(1.0))
    assert value >= 1e299
    assert math.isfinite(value)


def test_events_on_the_canary_speak_against_it_and_events_on_live_for_it() -> None:
    canary, live = (0.25, True, 20), (0.25, False, 60)
    assert weigh(canary, grid=worse_grid(1.0)) > 20
    assert weigh(live, grid=worse_grid(1.0)) < 0.05
    assert weigh(live, null_ratio=1.5, grid=better_grid(1.5)) > 20
