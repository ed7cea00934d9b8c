"""What each kind of feedback must hold, and where a rating lies."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptd.daemon.wire.events import Feedback
from adaptd.daemon.wire.feedback import problem_with, scaled_rating

_finite = st.floats(allow_nan=False, allow_infinity=False)


def a_feedback(**fields: Any) -> Feedback:
    return Feedback(id="f", time=datetime(2026, 1, 1, tzinfo=UTC), interaction="i", **fields)


def a_rating(value: float, scale: tuple[float, float] | None = None) -> Feedback:
    return a_feedback(kind="rating", value=float(value), scale=scale)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "rating", "value": 1.0},
        {"kind": "rating", "value": -1.0},
        {"kind": "rating", "value": 4.0, "scale": (1, 5)},
        {"kind": "correction", "text": "x"},
        {"kind": "correction", "message": {"role": "assistant"}},
        {"kind": "preference", "chosen": "a", "rejected": ""},
        {"kind": "label", "name": "a", "value": "b"},
        {"kind": "metric", "name": "a", "value": 0.0},
        {"kind": "comment", "text": "x"},
    ],
)
def test_complete_feedback_has_no_problem(fields: dict[str, Any]) -> None:
    assert problem_with(a_feedback(**fields)) is None


@pytest.mark.parametrize(
    ("fields", "reason", "told"),
    [
        ({"kind": "rating"}, "incomplete", "a number as value"),
        ({"kind": "rating", "value": "good"}, "incomplete", "a number as value"),
        ({"kind": "rating", "value": 0.0}, "rating_without_scale", "-1 or 1"),
        ({"kind": "rating", "value": 0.5}, "rating_without_scale", "-1 or 1"),
        ({"kind": "rating", "value": float("nan")}, "rating_without_scale", "-1 or 1"),
        ({"kind": "rating", "value": 6.0, "scale": (1, 5)}, "rating_out_of_range", "outside"),
        ({"kind": "rating", "value": 1.0, "scale": (5, 1)}, "rating_out_of_range", "empty"),
        (
            {"kind": "rating", "value": 1.0, "scale": (0, float("inf"))},
            "rating_out_of_range",
            "empty",
        ),
        ({"kind": "correction", "text": " "}, "incomplete", "text or message"),
        ({"kind": "preference", "chosen": "a"}, "incomplete", "chosen and rejected"),
        ({"kind": "label", "value": "a"}, "incomplete", "name and value"),
        ({"kind": "metric", "name": "a", "value": "b"}, "incomplete", "a number as value"),
        ({"kind": "comment"}, "incomplete", "text"),
    ],
)
def test_feedback_that_says_nothing_usable_is_told_why(
    fields: dict[str, Any], reason: str, told: str
) -> None:
    problem = problem_with(a_feedback(**fields))
    assert problem is not None
    assert problem.reason == reason
    assert told in problem.detail


@pytest.mark.parametrize(
    ("value", "scale", "place"),
    [
        (-1, None, -1),
        (1, None, 1),
        (1, (1, 5), -1),
        (3, (1, 5), 0),
        (4, (1, 5), 0.5),
        (5, (1, 5), 1),
        (0, (0, 1), -1),
        (0.5, (-1, 1), 0.5),
        (1.7e308, (-1.7e308, 1.7e308), 1),
    ],
)
def test_a_rating_is_mapped_from_its_scale(
    value: float, scale: tuple[float, float] | None, place: float
) -> None:
    assert problem_with(a_rating(value, scale)) is None
    assert scaled_rating(a_rating(value, scale)) == pytest.approx(place)


@given(value=_finite, low=_finite, high=_finite, share=st.floats(0, 1))
def test_a_rating_without_a_problem_never_leaves_its_range(
    value: float, low: float, high: float, share: float
) -> None:
    inside = low * (1 - share) + high * share
    for rating in (a_rating(value, (low, high)), a_rating(inside, (low, high)), a_rating(value)):
        if problem_with(rating) is None:
            assert -1 <= scaled_rating(rating) <= 1
