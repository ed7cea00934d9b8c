"""Langfuse's score exports, one score a line → adaptd's feedback. Pure.

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
    """Make a rating, metric, label, comment or correction of a score, and one of its comment.

    Ids are made of the content, so a score that was changed since the last export is new, and the
    later one counts.

    Raises:
        UnreadableError: not_a_score, no_interaction, no_value, or invalid.
    """
    if not isinstance(line, dict):
        raise UnreadableError("not_a_score", "a line is an object")
    name = _find_text(line, "name")
    if name is None or _find_field(line, "dataType", "data_type", "value", "stringValue") is None:
        raise UnreadableError("not_a_score", "a score has a name, and a value or a type")
    said = _read_content(line, name, options)
    comment = _find_text(line, "comment")
    events = [_make_feedback(line, options, **said)]
    if comment is not None and said["kind"] != "comment":
        events.append(_make_feedback(line, options, kind="comment", name=name, text=comment))
    return [encode_event(event) for event in events]


def _make_feedback(line: Mapping[str, Any], options: ImportOptions, **said: Any) -> Feedback:
    interaction = _read_interaction(line, options)
    author = _find_text(line, "authorUserId", "author_user_id")
    score = _find_text(line, "id")
    return Feedback(
        id=content_id("langfuse", score, interaction, author, options.tenant, said),
        time=_read_time(line, options),
        interaction=interaction,
        source=_SOURCES.get(_find_text(line, "source") or "API", "system"),
        user=author,
        tenant=options.tenant,
        **said,
    )


def _read_content(line: Mapping[str, Any], name: str, options: ImportOptions) -> dict[str, Any]:
    rating = next((rating for rating in options.ratings if rating.name == name), None)
    kind = _read_type(line)
    if rating is not None:
        return _read_rating(rating, kind, _read_number(line, name))
    if kind == "CORRECTION":
        return {"kind": "correction", "text": _read_string(line, name)}
    if kind == "TEXT":
        return {"kind": "comment", "name": name, "text": _read_string(line, name)}
    if kind == "CATEGORICAL":
        return {"kind": "label", "name": name, "value": _read_string(line, name)}
    return {"kind": "metric", "name": name, "value": _read_number(line, name)}


def _read_rating(rating: Rating, kind: str, value: float) -> dict[str, Any]:
    # A Boolean is 1 or 0, unless another scale is given.
    scale = rating.scale or ((0.0, 1.0) if kind == "BOOLEAN" else None)
    return {"kind": "rating", "name": rating.name, "value": value, "scale": scale}


def _read_type(line: Mapping[str, Any]) -> str:
    """Return the score's type. In older exports, which have none, a text is a category."""
    kind = _find_text(line, "dataType", "data_type")
    if kind is None:
        return "NUMERIC" if isinstance(line.get("value"), int | float) else "CATEGORICAL"
    if kind not in _TYPES:
        raise UnreadableError("not_a_score", f"a score of type {kind[:50]!r}")
    return kind


def _read_interaction(line: Mapping[str, Any], options: ImportOptions) -> str:
    names = ("traceId", "trace_id")
    if options.by == "observation":
        names = ("observationId", "observation_id")
    found = _find_text(line, *names)
    if found is None:
        raise UnreadableError("no_interaction", f"the score has no {names[1]}")
    return found


def _read_number(line: Mapping[str, Any], name: str) -> float:
    value = line.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableError("no_value", f"score {name[:100]!r} has no number as value")
    return float(value)


def _read_string(line: Mapping[str, Any], name: str) -> str:
    found = _find_text(line, "stringValue", "string_value") or _find_text(line, "value")
    if found is None:
        raise UnreadableError("no_value", f"score {name[:100]!r} has no text as value")
    return found


def _read_time(line: Mapping[str, Any], options: ImportOptions) -> datetime:
    """Return the time of the last change, in UTC where the export leaves the zone out."""
    text = _find_text(line, "updatedAt", "updated_at") or _find_text(line, "timestamp")
    if text is None:
        return options.time
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UnreadableError("invalid", "its time is not one") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _find_text(line: Mapping[str, Any], *names: str) -> str | None:
    found = _find_field(line, *names)
    return found if isinstance(found, str) and found.strip() else None


def _find_field(line: Mapping[str, Any], *names: str) -> Any:
    return next((line[name] for name in names if line.get(name) is not None), None)
