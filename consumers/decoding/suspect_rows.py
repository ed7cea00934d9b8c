"""Rows that the fast way read but may not vouch for: `parse` decides on them. The hot path."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute

from adaptd.consumers.decoding.json_events import EARLIEST_S, LATEST_S, MAX_DEPTH
from adaptd.consumers.decoding.rows import Rows
from adaptd.consumers.decoding.wire_types import UNCLEAR
from adaptd.daemon.wire.feedback import problem_with
from adaptd.daemon.wire.nesting import nests_deeper

pc: Any = pyarrow.compute  # its functions are made at import, so no checker knows them
# A double ends at 1.8e308: a number beyond it has an exponent of three digits, or very many digits.
_HUGE_NUMBER = r"[0-9][eE]\+?[0-9]{3}|[0-9]{100}"
_LEAST_DEEP_BYTES = 2 * MAX_DEPTH  # what is opened is closed


class _Object(msgspec.Struct, gc=False):
    """Any JSON object."""


_any = msgspec.json.Decoder().decode
_objects = msgspec.json.Decoder(list[_Object]).decode


def doubtful_interactions(rows: Rows) -> set[int]:
    """Rows whose time, alias or free JSON is not what it should be, as far as one can tell."""
    doubtful = set(_out_of_time(rows.micros())) | _unsound(rows, ["request", "choices", "params"])
    doubtful |= set(_no_lists(rows, "choices"))
    doubtful |= {
        row
        for row, record in enumerate(rows.records)
        if (models := record.sender.models) is not None and rows.events[row].model not in models
    }
    return doubtful - rows.settled


def doubtful_feedback(rows: Rows) -> set[int]:
    """As for interactions, and what its kind needs."""
    doubtful = set(_out_of_time(rows.micros())) | _unsound(rows, ["message"])
    for row, record in enumerate(rows.records):
        event, sources = rows.events[row], record.sender.sources
        permitted = sources is None or event.source in sources
        if not permitted or not _says_something(event):
            doubtful.add(row)
    return doubtful - rows.settled


def _says_something(event: Any) -> bool:
    """False also where it would take a look into the message to tell."""
    if event.kind == "correction" and not (event.text or "").strip():
        return False
    return problem_with(event) is None


def _out_of_time(micros: np.ndarray) -> Iterable[int]:
    outside = (micros < EARLIEST_S * 1_000_000) | (micros >= LATEST_S * 1_000_000)
    return np.flatnonzero(outside).tolist()


def _unsound(rows: Rows, names: Sequence[str]) -> set[int]:
    """Where free JSON is no object (or list), no UTF-8, nested too deep or has a huge number."""
    unsound: set[int] = set()
    for name in names:
        try:
            column = rows.json_column(name)
        except pa.ArrowInvalid:
            values = rows.json_values(name)
            return {row for row in range(len(rows)) if not _is_utf8(values[row])}
        if column.null_count == len(column):
            continue
        opening = "[" if name == "choices" else "{"
        suspect = pc.or_(
            pc.invert(pc.starts_with(column, opening)),
            pc.match_substring_regex(column, _HUGE_NUMBER),
        )
        if pc.max(pc.binary_length(column)).as_py() >= _LEAST_DEEP_BYTES:
            suspect = pc.or_(suspect, _has_many_braces(column))
        for row in np.flatnonzero(pc.fill_null(suspect, False).to_numpy(zero_copy_only=False)):
            if not _is_sound(column[row].as_py(), opening):
                unsound.add(int(row))
    return unsound


def _has_many_braces(column: pa.Array) -> Any:
    braces = pc.add(pc.count_substring(column, "{"), pc.count_substring(column, "["))
    return pc.greater(braces, MAX_DEPTH - 1)


def _is_sound(text: str, opening: str) -> bool:
    try:
        # One level less: the event itself is one.
        return text.startswith(opening) and not nests_deeper(_any(text), MAX_DEPTH - 1)
    except UNCLEAR:
        return False


def _is_utf8(value: bytes | None) -> bool:
    try:
        return value is None or value.decode() is not None
    except UnicodeDecodeError:
        return False


def _no_lists(rows: Rows, name: str) -> Iterable[int]:
    for row, value in enumerate(rows.json_values(name)):
        try:
            if value is not None:
                _objects(value)
        except UNCLEAR:
            yield row
