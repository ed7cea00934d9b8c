"""The formula behind "how long a step needs": against the medians measured for the e-process."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptd.daemon.doctor.traffic import Seen, duration, events_to_notice, hours_to_notice


@pytest.mark.parametrize(
    ("weight", "ratio", "measured"),
    [(0.5, 2.0, 56), (0.5, 3.0, 23), (0.1, 2.0, 107), (0.1, 3.0, 32), (0.5, 1.4, 223)],
)
def test_events_needed_agree_with_the_measured_medians(
    weight: float, ratio: float, measured: float
) -> None:
    assert events_to_notice(weight, ratio=ratio, alpha=0.05) == pytest.approx(measured, rel=0.25)


@given(st.floats(0.01, 0.99), st.floats(1.2, 6))
def test_a_larger_harm_needs_fewer_events(weight: float, ratio: float) -> None:
    assert events_to_notice(weight, ratio=ratio, alpha=0.05) > events_to_notice(
        weight, ratio=ratio + 0.5, alpha=0.05
    )


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_without_two_arms_nothing_is_ever_noticed(weight: float) -> None:
    assert events_to_notice(weight, alpha=0.05) == float("inf")


def test_hours_follow_from_units_and_their_negatives() -> None:
    seen = Seen(units_per_hour=100, negative_share=0.1)
    hours = hours_to_notice(seen, 0.5, alpha=0.05)
    assert hours == pytest.approx(events_to_notice(0.5, alpha=0.05) / (100 * 0.1 * 1.5))
    assert hours_to_notice(Seen(0, 0.1), 0.5, alpha=0.05) == float("inf")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.5, "1 s"), (119, "119 s"), (121, "3 min"), (7200, "2 h"), (200000, "3 days")],
)
def test_durations_read_naturally(seconds: float, words: str) -> None:
    assert duration(seconds) == words
    assert duration(float("inf")) == "never"
