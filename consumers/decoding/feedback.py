"""What a piece of feedback must hold, by kind, and a rating's place on -1 to 1. Pure."""

from adaptd.consumers.decoding.json_events import UnreadableError
from adaptd.daemon.wire.events import Feedback


def check_feedback(feedback: Feedback) -> None:
    """Raises UnreadableError (`incomplete`, `rating_out_of_range`) where it says nothing usable."""
    match feedback.kind:
        case "rating":
            scaled_rating(feedback)
        case "correction" if not (feedback.text or "").strip() and not feedback.message:
            raise _incomplete(feedback, "text or message")
        case "preference" if feedback.chosen is None or feedback.rejected is None:
            raise _incomplete(feedback, "chosen and rejected")
        case "label" if feedback.name is None or feedback.value is None:
            raise _incomplete(feedback, "name and value")
        case "metric" if feedback.name is None or not isinstance(feedback.value, float):
            raise _incomplete(feedback, "name and a number as value")
        case "comment" if not (feedback.text or "").strip():
            raise _incomplete(feedback, "text")


def scaled_rating(feedback: Feedback) -> float:
    """The rating from -1 to 1: with `scale` [min, max] mapped, without it as sent.

    Raises:
        UnreadableError: incomplete, or rating_out_of_range.
    """
    if not isinstance(feedback.value, float):
        raise _incomplete(feedback, "a number as value")
    low, high = feedback.scale or (-1.0, 1.0)
    if not low / 2 < high / 2:  # halves of two numbers next to zero are equal
        raise UnreadableError("rating_out_of_range", f"scale [{low}, {high}] is empty")
    if not low <= feedback.value <= high:
        raise UnreadableError(
            "rating_out_of_range", f"value {feedback.value} is outside [{low}, {high}]"
        )
    # Halved first: high - low of two huge numbers would overflow to infinity.
    share = (feedback.value / 2 - low / 2) / (high / 2 - low / 2)
    return min(max(2 * share - 1, -1.0), 1.0)


def _incomplete(feedback: Feedback, needed: str) -> UnreadableError:
    return UnreadableError("incomplete", f"a {feedback.kind} needs {needed}")
