from datetime import UTC, datetime
from typing import Any

import pytest

from adaptd.daemon.wire.events import Feedback
from adaptd.daemon.wire.feedback import problem_with


def a_feedback(**fields: Any) -> Feedback:
    return Feedback(id="f", time=datetime(2026, 1, 1, tzinfo=UTC), interaction="i", **fields)


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
    ("fields", "expected"),
    [
        ({"kind": "rating"}, "a number as value"),
        ({"kind": "rating", "value": "good"}, "a number as value"),
        ({"kind": "rating", "value": 0.0}, "-1 or 1"),
        ({"kind": "rating", "value": 6.0, "scale": (1, 5)}, "outside"),
        ({"kind": "rating", "value": 1.0, "scale": (5, 1)}, "empty"),
        ({"kind": "rating", "value": 1.0, "scale": (0, float("inf"))}, "empty"),
        ({"kind": "correction", "text": " "}, "text or message"),
        ({"kind": "preference", "chosen": "a"}, "chosen and rejected"),
        ({"kind": "label", "value": "a"}, "name and value"),
        ({"kind": "metric", "name": "a", "value": "b"}, "a number as value"),
        ({"kind": "comment"}, "text"),
    ],
)
def test_feedback_that_says_nothing_usable_is_told_why(
    fields: dict[str, Any], expected: str
) -> None:
    problem = problem_with(a_feedback(**fields))
    assert problem is not None
    assert expected in problem
