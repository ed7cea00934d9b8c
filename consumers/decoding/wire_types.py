"""Wire types: events with their known fields typed and free JSON left as its bytes. The hot path.

Making Python objects of requests and answers only to write them as JSON again takes most of the
time of a whole decode. `parse` reads everything that these types read, to the same effect, but for
what they do not check inside free JSON: text that is not UTF-8, numbers beyond a double, deep
nesting, and the elements of a list. `suspect_rows` looks for these.
"""

from typing import Any

import msgspec

from adaptd.consumers.decoding.json_events import MAX_BATCH, Event, Kind
from adaptd.daemon.wire.events import (
    FEEDBACK_SCHEMA,
    INTERACTION_SCHEMA,
    Feedback,
    Interaction,
    Usage,
)

NULL = msgspec.Raw(b"null")
JSON_FIELDS = frozenset({"request", "choices", "params", "message"})
BATCH_OPENS = b'{"batch"'
_OPTIONS: dict[str, Any] = {"kw_only": True, "forbid_unknown_fields": True, "gc": False}
_encode = msgspec.json.Encoder().encode


class _KnownUsage(Usage, frozen=True, forbid_unknown_fields=True, gc=False):
    pass


def _wire_type(event: type[Event], schema: str) -> Any:
    """Make a type with the event's own fields and constraints. `schema` becomes the tag."""
    fields: list[Any] = []
    for field in msgspec.structs.fields(event):
        if field.name in JSON_FIELDS:
            fields.append((field.name, msgspec.Raw, NULL))
        elif field.name == "usage":
            fields.append((field.name, _KnownUsage | None, None))
        elif field.required:
            fields.append((field.name, field.type))
        elif field.name != "schema":
            fields.append((field.name, field.type, field.default))
    name = f"Wire{event.__name__}"
    return msgspec.defstruct(name, fields, tag_field="schema", tag=schema, **_OPTIONS)


WireInteraction = _wire_type(Interaction, INTERACTION_SCHEMA)
WireFeedback = _wire_type(Feedback, FEEDBACK_SCHEMA)
_TYPES: dict[Kind | None, Any] = {
    "interaction": WireInteraction,
    "feedback": WireFeedback,
    None: WireInteraction | WireFeedback,
}
_ONE = {kind: msgspec.json.Decoder(wire).decode for kind, wire in _TYPES.items()}
_MANY: dict[Kind | None, Any] = {
    kind: msgspec.json.Decoder(
        msgspec.defstruct("_Batch", [("batch", list[wire])], **_OPTIONS)
    ).decode
    for kind, wire in _TYPES.items()
}
UNCLEAR = (msgspec.DecodeError, ValueError, RecursionError)


def read_one(value: bytes, kind: Kind | None) -> Any:
    """Read a message that is not a batch, as a wire type.

    Raises:
        UNCLEAR: there is anything but known fields of the right types. `parse` decides on it.
    """
    return _ONE[kind](value)


def read_batch(value: bytes, kind: Kind | None) -> list[Any]:
    """Read the events of a batch message. Raises as `read_one` does."""
    found = _MANY[kind](value).batch
    if not 0 < len(found) <= MAX_BATCH:
        raise ValueError("too many, or none")
    return found


def as_wire(event: Event) -> Any:
    """Turn an event that was parsed the slow way into a wire type."""
    values = msgspec.structs.asdict(event)
    del values["schema"]
    for name in JSON_FIELDS & values.keys():
        values[name] = NULL if values[name] is None else msgspec.Raw(_encode(values[name]))
    return (WireInteraction if isinstance(event, Interaction) else WireFeedback)(**values)
