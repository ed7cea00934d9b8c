"""Langfuse's score exports, a score a line → our feedback. Pure.

Fields are read as the API and the web export name them (traceId) and as the export to blob storage
does (trace_id): langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from adaptd.consumers.decoding.json_events import UnreadableError
from adaptd.consumers.doors.import_options import ImportOptions, Rating, content_id
from adaptd.daemon.wire.events import Feedback, Source, encode_event

_SOURCES: dict[str, Source] = {"ANNOTATION": "reviewer", "API": "user", "EVAL": "system"}
_TYPES = ("NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT", "CORRECTION")


def score_events(line: Any, options: ImportOptions) -> list[bytes]:
    """The score as a rating, metric, label, comment or correction, and its comment as a comment.

    Its id is made of what it says, so a score that was changed since the last export is new, and
    the later one counts.

    Raises:
        UnreadableError: not_a_score, no_interaction, no_value, or invalid.
    """
    if not isinstance(line, dict):
        raise UnreadableError("not_a_score", "a line is an object")
    name = _text(line, "name")
    if name is None or _given(line, "dataType", "data_type", "value", "stringValue") is None:
        raise UnreadableError("not_a_score", "a score has a name, and a value or a type")
    said = _said(line, name, options)
    comment = _text(line, "comment")
    events = [_feedback(line, options, **said)]
    if comment is not None and said["kind"] != "comment":
        events.append(_feedback(line, options, kind="comment", name=name, text=comment))
    return [encode_event(event) for event in events]


def _feedback(line: Mapping[str, Any], options: ImportOptions, **said: Any) -> Feedback:
    interaction = _interaction(line, options)
    author = _text(line, "authorUserId", "author_user_id")
    score = _text(line, "id")
    return Feedback(
        id=content_id("langfuse", score, interaction, author, options.tenant, said),
        time=_time(line, options),
        interaction=interaction,
        source=_SOURCES.get(_text(line, "source") or "API", "system"),
        user=author,
        tenant=options.tenant,
        **said,
    )


def _said(line: Mapping[str, Any], name: str, options: ImportOptions) -> dict[str, Any]:
    rating = next((rating for rating in options.ratings if rating.name == name), None)
    kind = _type(line)
    if rating is not None:
        return _rating(rating, kind, _number(line, name))
    if kind == "CORRECTION":
        return {"kind": "correction", "text": _string(line, name)}
    if kind == "TEXT":
        return {"kind": "comment", "name": name, "text": _string(line, name)}
    if kind == "CATEGORICAL":
        return {"kind": "label", "name": name, "value": _string(line, name)}
    return {"kind": "metric", "name": name, "value": _number(line, name)}


def _rating(rating: Rating, kind: str, value: float) -> dict[str, Any]:
    """A yes or no is 1 or 0, unless another scale is given."""
    scale = rating.scale or ((0.0, 1.0) if kind == "BOOLEAN" else None)
    return {"kind": "rating", "name": rating.name, "value": value, "scale": scale}


def _type(line: Mapping[str, Any]) -> str:
    """Older exports have no type: a text without a number is a category."""
    kind = _text(line, "dataType", "data_type")
    if kind is None:
        return "NUMERIC" if isinstance(line.get("value"), int | float) else "CATEGORICAL"
    if kind not in _TYPES:
        raise UnreadableError("not_a_score", f"a score of type {kind[:50]!r}")
    return kind


def _interaction(line: Mapping[str, Any], options: ImportOptions) -> str:
    names = ("traceId", "trace_id")
    if options.by == "observation":
        names = ("observationId", "observation_id")
    found = _text(line, *names)
    if found is None:
        raise UnreadableError("no_interaction", f"the score has no {names[1]}")
    return found


def _number(line: Mapping[str, Any], name: str) -> float:
    value = line.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableError("no_value", f"score {name[:100]!r} has no number as value")
    return float(value)


def _string(line: Mapping[str, Any], name: str) -> str:
    found = _text(line, "stringValue", "string_value") or _text(line, "value")
    if found is None:
        raise UnreadableError("no_value", f"score {name[:100]!r} has no text as value")
    return found


def _time(line: Mapping[str, Any], options: ImportOptions) -> datetime:
    """When it was last changed, in UTC where the export leaves the zone out."""
    text = _text(line, "updatedAt", "updated_at") or _text(line, "timestamp")
    if text is None:
        return options.time
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UnreadableError("invalid", "its time is not one") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _text(line: Mapping[str, Any], *names: str) -> str | None:
    found = _given(line, *names)
    return found if isinstance(found, str) and found.strip() else None


def _given(line: Mapping[str, Any], *names: str) -> Any:
    return next((line[name] for name in names if line.get(name) is not None), None)
