"""Events → Arrow tables with the columns of the store's tables. The hot path: column by column."""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import pyarrow as pa

from adaptd.consumers.decoding.rows import Rows
from adaptd.daemon.domain.ingest import ADDRESS_COLUMNS
from adaptd.daemon.wire.feedback import scaled_rating

_TIME = pa.timestamp("us", tz="UTC")
_TAGS = pa.map_(pa.string(), pa.string())
_USAGE = pa.struct([("prompt_tokens", pa.int64()), ("completion_tokens", pa.int64())])
_STRING = pa.string()
_ADDRESS_TYPES = (_STRING, pa.int32(), pa.int64(), pa.int32())
_ADDRESS = [("source", _STRING), *zip(ADDRESS_COLUMNS, _ADDRESS_TYPES, strict=True)]
INTERACTIONS = pa.schema(
    [
        ("id", _STRING),
        ("time", _TIME),
        ("tenant", _STRING),
        ("model", _STRING),
        ("adapter", _STRING),
        ("unit", _STRING),
        ("unit_kind", _STRING),
        ("conversation", _STRING),
        ("user", _STRING),
        ("client_request_id", _STRING),
        ("request", _STRING),
        ("choices", _STRING),
        ("base_digest", _STRING),
        ("template_digest", _STRING),
        ("arm", _STRING),
        ("weight", pa.float64()),
        ("rollout", _STRING),
        ("gateway", _STRING),
        ("status", _STRING),
        ("latency_ms", pa.float64()),
        ("ttft_ms", pa.float64()),
        ("usage", _USAGE),
        ("params", _STRING),
        ("tags", _TAGS),
        ("texts", _STRING),
        ("extra", _STRING),
        ("trusted", pa.bool_()),
        *_ADDRESS,
    ]
)
FEEDBACK = pa.schema(
    [
        ("id", _STRING),
        ("time", _TIME),
        ("interaction", _STRING),
        ("choice", pa.int32()),
        ("user", _STRING),
        ("origin", _STRING),
        ("tenant", _STRING),
        ("kind", _STRING),
        ("value", pa.float64()),
        ("label", _STRING),
        ("text", _STRING),
        ("message", _STRING),
        ("chosen", _STRING),
        ("rejected", _STRING),
        ("name", _STRING),
        ("tags", _TAGS),
        ("extra", _STRING),
        ("trusted", pa.bool_()),
        ("principal", _STRING),
        *_ADDRESS,
    ]
)
DEAD_LETTERS = pa.schema(
    [
        ("id", _STRING),
        ("reason", _STRING),
        ("detail", _STRING),
        *_ADDRESS,
        ("bytes", pa.binary()),
        ("sender", _STRING),
    ]
)


def interactions_table(rows: Rows, source: str) -> pa.Table:
    """Build the table of interactions.

    Raises:
        ArrowException, OverflowError, ValueError: a value does not fit its column.
    """
    columns = _build_shared(rows, source) | {
        "usage": _build_usage(rows.events),
        "request": rows.json_column("request"),
        "choices": rows.json_column("choices"),
        "params": rows.json_column("params"),
    }
    return _assemble_table(INTERACTIONS, columns, rows.events)


def feedback_table(rows: Rows, source: str) -> pa.Table:
    """Build the table of feedback. Raises as `interactions_table` does."""
    events = rows.events
    columns = _build_shared(rows, source) | {
        "principal": _repeat_or_list([record.sender.principal for record in rows.records], _STRING),
        "origin": [event.source for event in events],
        "value": [_numeric_value(event) for event in events],
        "label": [event.value if isinstance(event.value, str) else None for event in events],
        "message": rows.json_column("message"),
        "extra": [_with_scale(event, rows.extra.get(row)) for row, event in enumerate(events)],
    }
    return _assemble_table(FEEDBACK, columns, events)


def dead_letters_table(letters: Iterable[dict[str, Any]]) -> pa.Table:
    """Build the table of dead letters, each a dictionary of its columns."""
    return pa.Table.from_pylist(list(letters), schema=DEAD_LETTERS)


def _assemble_table(schema: pa.Schema, columns: dict[str, Any], events: Sequence[Any]) -> pa.Table:
    """Assemble a table. Columns not given are the events' own fields of that name."""
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        if values is None:
            values = list(map(attrgetter(field.name), events))
        arrays.append(values if isinstance(values, pa.Array) else pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _build_shared(rows: Rows, source: str) -> dict[str, Any]:
    records = rows.records
    address = (
        _repeat_or_list([record.topic for record in records], _STRING),
        pa.array([record.partition for record in records], pa.int32()),
        pa.array([record.position for record in records], pa.int64()),
        pa.array(rows.indexes, pa.int32()),
    )
    return {
        "time": pa.array(rows.micros()).cast(_TIME),
        "tenant": _build_tenants(rows),
        "tags": _build_tags([event.tags for event in rows.events]),
        "extra": _build_extra(rows),
        "trusted": _repeat_or_list([record.sender.trusted for record in records], pa.bool_()),
        "source": pa.repeat(pa.scalar(source, _STRING), len(rows)),
    } | dict(zip(ADDRESS_COLUMNS, address, strict=True))


def _repeat_or_list(values: list[Any], kind: pa.DataType) -> pa.Array:
    # Most chunks are of one topic and one sender: no need to copy its name a thousand times.
    if values and values.count(values[0]) == len(values):
        return pa.repeat(pa.scalar(values[0], kind), len(values))
    return pa.array(values, kind)


def _build_tenants(rows: Rows) -> list[str | None]:
    return [
        record.sender.tenant if record.sender.stamps_tenant else event.tenant
        for event, record in zip(rows.events, rows.records, strict=True)
    ]


def _build_extra(rows: Rows) -> pa.Array:
    if not rows.extra:
        return pa.nulls(len(rows), _STRING)
    return pa.array([rows.extra.get(row) for row in range(len(rows))], _STRING)


def _build_tags(tags: Sequence[dict[str, str] | None]) -> pa.Array:
    # From flat lists: 3 × as fast as a list of lists of pairs. A None offset is a null.
    offsets: list[int | None] = []
    keys: list[str] = []
    values: list[str] = []
    for each in tags:
        offsets.append(None if each is None else len(keys))
        if each:
            keys.extend(each)
            values.extend(each.values())
    offsets.append(len(keys))
    return pa.MapArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.array(keys, _STRING), pa.array(values, _STRING)
    )


def _build_usage(events: Sequence[Any]) -> pa.Array:
    usages = [event.usage for event in events]
    parts = [
        pa.array([usage and usage.prompt_tokens for usage in usages], pa.int64()),
        pa.array([usage and usage.completion_tokens for usage in usages], pa.int64()),
    ]
    missing = pa.array([usage is None for usage in usages], pa.bool_())
    return pa.StructArray.from_arrays(parts, fields=list(_USAGE), mask=missing)


def _numeric_value(feedback: Any) -> float | None:
    if feedback.kind == "rating":
        return scaled_rating(feedback)
    return feedback.value if isinstance(feedback.value, float) else None


def _with_scale(event: Any, extra: bytes | None) -> bytes | None:
    # A scaled rating keeps what was sent: 4 on [1, 5] is not 0.5 on another scale.
    if event.kind != "rating" or event.scale is None:
        return extra
    known = msgspec.json.decode(extra) if extra else {}
    return msgspec.json.encode(known | {"value": event.value, "scale": event.scale})
