"""Rules of feedback: contents by kind, a rating's place on -1 to 1, negative feedback. Pure.

The one definition for every door: the gateway, POST /v1/events, Kafka, and imported files.
"""

import math
from typing import Any, NamedTuple

INCOMPLETE = "incomplete"
RATING_WITHOUT_SCALE = "rating_without_scale"
RATING_OUT_OF_RANGE = "rating_out_of_range"


class Unusable(NamedTuple):
    """Reason why feedback cannot be used, as a word to count by, and its detail."""

    reason: str
    detail: str


def problem_with(feedback: Any) -> Unusable | None:
    """Explain why feedback cannot be used; None where it can.

    `feedback` is a `Feedback`, or has its fields.
    """
    if (missing := _name_missing(feedback)) is not None:
        return Unusable(INCOMPLETE, f"a {feedback.kind} needs {missing}")
    return _check_rating(feedback) if feedback.kind == "rating" else None


def scaled_rating(feedback: Any) -> float:
    """Return the place from -1 to 1 of a rating without a problem, by its scale."""
    if feedback.scale is None:
        return feedback.value
    low, high = feedback.scale
    # Halved first: high - low of two huge numbers would overflow to infinity.
    share = (feedback.value / 2 - low / 2) / (high / 2 - low / 2)
    return min(max(2 * share - 1, -1.0), 1.0)


def is_negative(kind: str, value: float | None) -> bool:
    """Say whether feedback judges an answer badly: a correction, or a rating below 0.

    `value` is a rating's place from -1 to 1. SQL counts by the same rule, for guard and triggers.
    """
    return kind == "correction" or (kind == "rating" and value is not None and value < 0)


def _name_missing(feedback: Any) -> str | None:
    missing: str | None = None
    match feedback.kind:
        case "rating" if not isinstance(feedback.value, float):
            missing = "a number as value"
        case "correction" if not (feedback.text or "").strip() and not feedback.message:
            missing = "text or message"
        case "preference" if feedback.chosen is None or feedback.rejected is None:
            missing = "chosen and rejected"
        case "label" if feedback.name is None or feedback.value is None:
            missing = "name and value"
        case "metric" if feedback.name is None or not isinstance(feedback.value, float):
            missing = "name and a number as value"
        case "comment" if not (feedback.text or "").strip():
            missing = "text"
        case _:
            pass
    return missing


def _check_rating(feedback: Any) -> Unusable | None:
    # Without a scale a rating is -1 or 1; with one it lies on the scale.
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
