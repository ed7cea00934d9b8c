"""What a piece of feedback must hold, by kind, and a rating's place on -1 to 1. Pure.

The one definition for every door: the gateway, POST /v1/events, Kafka, and imported files.
"""

import math
from typing import Any, NamedTuple

INCOMPLETE = "incomplete"
RATING_WITHOUT_SCALE = "rating_without_scale"
RATING_OUT_OF_RANGE = "rating_out_of_range"


class Unusable(NamedTuple):
    """Why feedback says nothing that can be used: a word to count by, and more of it."""

    reason: str
    detail: str


def problem_with(feedback: Any) -> Unusable | None:
    """Why it says nothing that can be used, or None where it does.

    `feedback` is a `Feedback`, or has its fields.
    """
    if (missing := _missing(feedback)) is not None:
        return Unusable(INCOMPLETE, f"a {feedback.kind} needs {missing}")
    return _rating_problem(feedback) if feedback.kind == "rating" else None


def scaled_rating(feedback: Any) -> float:
    """The place from -1 to 1 of a rating without a problem: where its scale puts it."""
    if feedback.scale is None:
        return feedback.value
    low, high = feedback.scale
    # Halved first: high - low of two huge numbers would overflow to infinity.
    share = (feedback.value / 2 - low / 2) / (high / 2 - low / 2)
    return min(max(2 * share - 1, -1.0), 1.0)


def _missing(feedback: Any) -> str | None:
    match feedback.kind:
        case "rating" if not isinstance(feedback.value, float):
            return "a number as value"
        case "correction" if not (feedback.text or "").strip() and not feedback.message:
            return "text or message"
        case "preference" if feedback.chosen is None or feedback.rejected is None:
            return "chosen and rejected"
        case "label" if feedback.name is None or feedback.value is None:
            return "name and value"
        case "metric" if feedback.name is None or not isinstance(feedback.value, float):
            return "name and a number as value"
        case "comment" if not (feedback.text or "").strip():
            return "text"
    return None


def _rating_problem(feedback: Any) -> Unusable | None:
    """Without a scale a rating is -1 or 1; with one it lies on it."""
    value: float = feedback.value
    if feedback.scale is None:
        if value in (-1, 1):
            return None
        return Unusable(RATING_WITHOUT_SCALE, "a rating without a scale is -1 or 1")
    low, high = feedback.scale
    # Halves, since those of two numbers next to zero are equal.
    if not (math.isfinite(low) and math.isfinite(high) and low / 2 < high / 2):
        return Unusable(RATING_OUT_OF_RANGE, f"the scale [{low}, {high}] is empty")
    if not low <= value <= high:
        return Unusable(RATING_OUT_OF_RANGE, f"the value {value} is outside [{low}, {high}]")
    return None
