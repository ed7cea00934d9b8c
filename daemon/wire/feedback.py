"""What a piece of feedback must hold, by kind. Pure."""

import math

from adaptd.daemon.wire.events import Feedback


def problem_with(feedback: Feedback) -> str | None:
    """Why it says nothing that can be used, or None where it does."""
    missing = _missing(feedback)
    if missing is not None:
        return f"a {feedback.kind} needs {missing}"
    return _rating_problem(feedback) if feedback.kind == "rating" else None


def _missing(feedback: Feedback) -> str | None:
    has_text = bool((feedback.text or "").strip())
    is_number = isinstance(feedback.value, float)
    needed = {
        "rating": ("a number as value", is_number),
        "correction": ("text or message", has_text or bool(feedback.message)),
        "preference": ("chosen and rejected", None not in (feedback.chosen, feedback.rejected)),
        "label": ("name and value", None not in (feedback.name, feedback.value)),
        "metric": ("name and a number as value", feedback.name is not None and is_number),
        "comment": ("text", has_text),
    }
    what, given = needed[feedback.kind]
    return None if given else what


def _rating_problem(feedback: Feedback) -> str | None:
    """Without a scale a rating is -1 or 1; with one it lies on it."""
    assert isinstance(feedback.value, float)
    if feedback.scale is None:
        return None if feedback.value in (-1, 1) else "a rating without a scale is -1 or 1"
    low, high = feedback.scale
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return f"the scale [{low}, {high}] is empty"
    return None if low <= feedback.value <= high else f"the value is outside [{low}, {high}]"
