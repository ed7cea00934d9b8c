"""Events as senders make them, in the fewest words."""

import itertools
from datetime import UTC, datetime
from typing import Any

import msgspec

from adaptd.daemon.wire.events import FEEDBACK_SCHEMA, INTERACTION_SCHEMA

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
_number = itertools.count(1)


def an_interaction(**fields: Any) -> dict[str, Any]:
    """A plain answer of alias `support`; give fields to change or, as None, to leave out."""
    made = {
        "schema": INTERACTION_SCHEMA,
        "id": f"i{next(_number)}",
        "time": NOON.isoformat(),
        "model": "support",
        "request": {"messages": [{"role": "user", "content": "Where is my card?"}]},
        "choices": [{"message": {"role": "assistant", "content": "card_arrival"}}],
        "tags": {"product": "cards"},
    } | fields
    return {name: value for name, value in made.items() if value is not None}


def a_rating(of: str, value: float = -1, **fields: Any) -> dict[str, Any]:
    return _feedback(of, **{"kind": "rating", "value": value} | fields)


def a_correction(of: str, text: str = "card_arrival", **fields: Any) -> dict[str, Any]:
    return _feedback(of, **{"kind": "correction", "text": text} | fields)


def as_bytes(event: Any) -> bytes:
    return msgspec.json.encode(event)


def _feedback(of: str, **fields: Any) -> dict[str, Any]:
    made = {
        "schema": FEEDBACK_SCHEMA,
        "id": f"f{next(_number)}",
        "time": NOON.isoformat(),
        "interaction": of,
        "user": "ada",
    } | fields
    return {name: value for name, value in made.items() if value is not None}
