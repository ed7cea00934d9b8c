"""Doubtful rows: read the fast way, yet `parse` must decide on them. The hot path."""

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
# A double ends at 1.8e308. A number beyond it has an exponent of three digits, or very many digits.
_HUGE_NUMBER = r"[0-9][eE]\+?[0-9]{3}|[0-9]{100}"
_LEAST_DEEP_BYTES = 2 * MAX_DEPTH  # a bracket to open and one to close, each level


class _Object(msgspec.Struct, gc=False):
    """Any JSON object."""


_any = msgspec.json.Decoder().decode
_objects = msgspec.json.Decoder(list[_Object]).decode


def doubtful_interactions(rows: Rows) -> set[int]:
    """Find rows whose time, alias or free JSON may be unusable."""
    doubtful = set(_find_bad_times(rows.micros()))
    doubtful |= _find_bad_json(rows, ["request", "choices", "params"])
    doubtful |= set(_find_bad_lists(rows, "choices"))
    doubtful |= {
        row
        for row, record in enumerate(rows.records)
        if (models := record.sender.models) is not None and rows.events[row].model not in models
    }
    return doubtful - rows.settled


def doubtful_feedback(rows: Rows) -> set[int]:
    """Find rows whose time, source, message or needed fields may be unusable."""
    doubtful = set(_find_bad_times(rows.micros())) | _find_bad_json(rows, ["message"])
    for row, record in enumerate(rows.records):
        event, sources = rows.events[row], record.sender.sources
        permitted = sources is None or event.source in sources
        if not permitted or not _is_complete(event):
            doubtful.add(row)
    return doubtful - rows.settled


def _is_complete(event: Any) -> bool:
    # A correction without text needs a message. Its content is left to the slow way.
    if event.kind == "correction" and not (event.text or "").strip():
        return False
    return problem_with(event) is None


def _find_bad_times(micros: np.ndarray) -> Iterable[int]:
    outside = (micros < EARLIEST_S * 1_000_000) | (micros >= LATEST_S * 1_000_000)
    return np.flatnonzero(outside).tolist()


def _find_bad_json(rows: Rows, names: Sequence[str]) -> set[int]:
    """Find free JSON of the wrong type, not UTF-8, nested too deep, or with a huge number."""
    bad: set[int] = set()
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
                bad.add(int(row))
    return bad


def _has_many_braces(column: pa.Array) -> Any:
    braces = pc.add(pc.count_substring(column, "{"), pc.count_substring(column, "["))
    return pc.greater(braces, MAX_DEPTH - 1)


def _is_sound(text: str, opening: str) -> bool:
    try:
        # One level less than MAX_DEPTH: the event itself is one.
        return text.startswith(opening) and not nests_deeper(_any(text), MAX_DEPTH - 1)
    except UNCLEAR:
        return False


def _is_utf8(value: bytes | None) -> bool:
    try:
        return value is None or value.decode() is not None
    except UnicodeDecodeError:
        return False


def _find_bad_lists(rows: Rows, name: str) -> Iterable[int]:
    for row, value in enumerate(rows.json_values(name)):
        try:
            if value is not None:
                _objects(value)
        except UNCLEAR:
            yield row
