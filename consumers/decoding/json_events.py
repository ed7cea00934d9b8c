"""JSON events: bytes → one event, or the reason why not. Pure; raises only UnreadableError."""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from adaptd.daemon.wire.events import (
    FEEDBACK_SCHEMA,
    INTERACTION_SCHEMA,
    MAX_BATCH,
    Feedback,
    Interaction,
    Usage,
)
from adaptd.daemon.wire.nesting import nests_deeper
from adaptd.daemon.wire.texts import encodable

Kind = Literal["interaction", "feedback"]
Event = Interaction | Feedback

# Beyond these limits nothing is kept as an event. The bytes stay in the dead letter.
MAX_EVENT_BYTES = 5_000_000
MAX_DEPTH = 64
_LEAST_EVENT_BYTES = 40  # its id, time and subject alone need more
EARLIEST_S = 0  # 1970
LATEST_S = 7_258_118_400  # 2200
_MAX_DETAIL = 500


class UnreadableError(Exception):
    """A record is a dead letter: `reason` is one word to count by, `detail` says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = encodable(detail)[:_MAX_DETAIL]


class Parsed(msgspec.Struct, frozen=True):
    """An event and the JSON of its unknown fields."""

    event: Event
    extra: bytes | None = None


class _Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    batch: msgspec.Raw


class _LooseBatch(msgspec.Struct, frozen=True):
    batch: msgspec.Raw


_TYPES: dict[Kind, type[Event]] = {"interaction": Interaction, "feedback": Feedback}
_SCHEMAS: dict[Kind, str] = {"interaction": INTERACTION_SCHEMA, "feedback": FEEDBACK_SCHEMA}
_SCHEMA = re.compile(r"adaptd\.(interaction|feedback)/(\d{1,4})(?:\.\d{1,4})?")
# Each part becomes an object of 100 bytes or more. With fewer commas they take 50 MB at most.
_MANY_COMMAS = 500_000
_parts_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_step_decoder = json.JSONDecoder()
_GAPS = re.compile(r"[ \t\r\n,]*")
_batch_decoder = msgspec.json.Decoder(_Batch)
_loose_batch_decoder = msgspec.json.Decoder(_LooseBatch)
_any_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def split(value: bytes | None) -> Iterator[bytes]:
    """Split a message into the events of its batch. Other messages are one event themselves.

    Raises:
        UnreadableError: no value, too large, or a batch that is empty, too long or not a list.
    """
    if value is None:
        raise UnreadableError("no_value", "the record has no value")
    if len(value) > MAX_EVENT_BYTES:
        raise UnreadableError("too_large", f"{len(value)} bytes, at most {MAX_EVENT_BYTES}")
    if b'"batch"' not in value:
        yield value
        return
    parts = _find_parts(value)
    if parts is None:
        yield value
    elif not parts:
        raise UnreadableError("empty_batch", "a batch of no events")
    elif len(parts) > MAX_BATCH:
        raise UnreadableError("batch_too_long", f"{len(parts)} events, at most {MAX_BATCH}")
    elif len(value) < len(parts) * _LEAST_EVENT_BYTES:  # one dead letter, not thousands
        raise UnreadableError("no_events", f"{len(parts)} parts in {len(value)} bytes")
    else:
        yield from map(bytes, parts)


def count_events(value: bytes) -> int:
    """Count the events that `split` makes of a message; 1 where it cannot be split."""
    if b'"batch"' not in value:
        return 1
    try:
        return max(1, len(_find_parts(value) or ()))
    except UnreadableError:
        return 1


def parse(raw: bytes, kind: Kind | None) -> Parsed:
    """Read one event the slow and thorough way, in 20 µs. `kind` is what its topic holds.

    Raises:
        UnreadableError: with one of the reasons below.
    """
    found = decode_json(raw)
    if not isinstance(found, dict):
        raise UnreadableError(
            "not_an_object", f"an event is a JSON object, not {type(found).__name__}"
        )
    if nests_deeper(found, MAX_DEPTH):
        raise UnreadableError("too_deep", f"nested more than {MAX_DEPTH} levels")
    kind = _find_kind(found, kind)
    known = _TYPES[kind].__struct_fields__
    extra = {name: value for name, value in found.items() if name not in known}
    if isinstance(usage := found.get("usage"), dict):
        extra |= _unknown_usage(usage)
    try:
        event = msgspec.convert(found | {"schema": _SCHEMAS[kind]}, _TYPES[kind])
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise UnreadableError("invalid", str(error)) from error
    return Parsed(event, _encoder.encode(extra) if extra else None)


def decode_json(raw: bytes) -> Any:
    """Read any JSON value.

    Raises:
        UnreadableError: not_utf8, not_json, too_deep.
    """
    try:
        return _any_decoder.decode(raw)
    except RecursionError as error:
        raise UnreadableError("too_deep", f"nested more than {MAX_DEPTH} levels") from error
    except (msgspec.DecodeError, ValueError) as error:
        try:
            raw.decode()
        except UnicodeDecodeError as wrong:
            raise UnreadableError("not_utf8", str(wrong)) from wrong
        raise UnreadableError("not_json", str(error)) from error


def array_parts(array: bytes, most: int) -> list[msgspec.Raw]:
    """Split a JSON array into its elements.

    Raises:
        UnreadableError: batch_too_long: there are more than `most`, and so many that they would
            fill the memory.
        msgspec.DecodeError, ValueError, RecursionError: it is not an array.
    """
    if array.count(b",") >= _MANY_COMMAS and _is_longer(array.decode(), most):
        raise UnreadableError("batch_too_long", f"more than {most} events")
    return _parts_decoder.decode(array)


def _is_longer(array: str, most: int) -> bool:
    # The elements are read one by one, so that they are never all in memory.
    at = array.index("[") + 1
    for _ in range(most):
        at = _GAPS.match(array, at).end()  # pyright: ignore[reportOptionalMemberAccess] - it also matches an empty text
        if array[at : at + 1] == "]":
            return False
        _, at = _step_decoder.raw_decode(array, at)
    at = _GAPS.match(array, at).end()  # pyright: ignore[reportOptionalMemberAccess] - as above
    return array[at : at + 1] != "]"


def _find_parts(value: bytes) -> list[msgspec.Raw] | None:
    """Split a batch message into its parts. None: the message is one event after all."""
    try:
        return array_parts(bytes(_batch_decoder.decode(value).batch), MAX_BATCH)
    except (msgspec.DecodeError, ValueError, RecursionError):
        found = decode_json(value)  # the batch may have unknown fields, or be a field of an event
    if not isinstance(found, dict) or "batch" not in found or "id" in found:
        return None
    try:
        return array_parts(bytes(_loose_batch_decoder.decode(value).batch), MAX_BATCH)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UnreadableError("invalid", "batch must be a list of events") from error


def _find_kind(found: dict[str, Any], kind: Kind | None) -> Kind:
    schema = found.get("schema")
    if schema is None and kind is not None:
        return kind
    if schema is None:
        raise UnreadableError(
            "unknown_schema", f"no schema: give {INTERACTION_SCHEMA} or {FEEDBACK_SCHEMA}"
        )
    match = _SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
    if match is None:
        raise UnreadableError("unknown_schema", f"schema {str(schema)[:100]!r}")
    if match[2] != "1":
        raise UnreadableError("unknown_version", f"schema {schema!r}: this release reads version 1")
    return "interaction" if match[1] == "interaction" else "feedback"


def _unknown_usage(usage: dict[str, Any]) -> dict[str, Any]:
    extra = {name: value for name, value in usage.items() if name not in Usage.__struct_fields__}
    return {"usage": extra} if extra else {}


def check_time(event: Event) -> None:
    """Raise UnreadableError where a clock is so wrong that no store could hold the time."""
    if not EARLIEST_S <= event.time.timestamp() < LATEST_S:
        raise UnreadableError("time_out_of_range", f"{event.time.isoformat()}: give 1970 to 2199")
