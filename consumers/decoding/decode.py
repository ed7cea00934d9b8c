"""Records → tables and dead letters. Pure, and it never raises: nothing a sender sends stops it.

Most records are read the fast way: typed, column by column, free JSON left as its bytes. Whatever
is odd about one sends that event the slow way through `parse`, which decides.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from adaptd.consumers.decoding.arrow_tables import (
    dead_letters_table,
    feedback_table,
    interactions_table,
)
from adaptd.consumers.decoding.json_events import (
    MAX_EVENT_BYTES,
    Parsed,
    UnreadableError,
    check_time,
    parse,
    split,
)
from adaptd.consumers.decoding.records import SIGNED, Record, Sender
from adaptd.consumers.decoding.rows import Rows
from adaptd.consumers.decoding.suspect_rows import doubtful_feedback, doubtful_interactions
from adaptd.consumers.decoding.wire_types import (
    BATCH_OPENS,
    UNCLEAR,
    WireInteraction,
    as_wire,
    read_batch,
    read_one,
)
from adaptd.daemon.domain.ingest import Decoded, Span
from adaptd.daemon.wire.events import Feedback
from adaptd.daemon.wire.feedback import problem_with

__all__ = ["SIGNED", "Record", "Sender", "decode"]

_UNFIT = (pa.ArrowException, OverflowError, ValueError, TypeError)
_Build = Callable[[Rows, str], pa.Table]
_Doubt = Callable[[Rows], set[int]]


def decode(records: Iterable[Record], *, source: str, spans: Sequence[Span]) -> Decoded:
    """Every event of every record becomes a row of one of the three tables."""
    work = _Work(source)
    work.take(records)
    interactions = work.table(work.interactions, doubtful_interactions, interactions_table)
    feedback = work.table(work.feedback, doubtful_feedback, feedback_table)
    return Decoded(source, interactions, feedback, dead_letters_table(work.letters), spans)


class _Work:
    """Rows and dead letters as they come."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.interactions = Rows()
        self.feedback = Rows()
        self.letters: list[dict[str, Any]] = []
        self._parts: tuple[Record | None, list[bytes]] = (None, [])

    def take(self, records: Iterable[Record]) -> None:
        add_interaction, add_feedback = self.interactions.add, self.feedback.add
        for record in records:
            value = record.value
            if (
                value is None
                or len(value) > MAX_EVENT_BYTES
                or isinstance(record.sender, UnreadableError)
            ):
                self._take_slowly(record)
                continue
            try:
                if not value.startswith(BATCH_OPENS):
                    event = read_one(value, record.kind)
                    (add_interaction if type(event) is WireInteraction else add_feedback)(
                        event, record, 0
                    )
                    continue
                events = read_batch(value, record.kind)
            except UNCLEAR:
                self._take_slowly(record)
                continue
            for index, event in enumerate(events):
                self._rows_of(event).add(event, record, index)

    def table(self, rows: Rows, doubts: _Doubt, build: _Build) -> pa.Table:
        """The rows that can be stored, once nothing is in doubt; the others become dead letters."""
        while doubtful := doubts(rows):
            rows = rows.without({row for row in doubtful if not self._settle(rows, row)})
        try:
            return build(rows, self.source)
        except _UNFIT:
            unfit = {row for row in range(len(rows)) if not self._fits(rows, row, build)}
            return build(rows.without(unfit), self.source)

    def _rows_of(self, event: Any) -> Rows:
        return self.interactions if isinstance(event, WireInteraction) else self.feedback

    def _take_slowly(self, record: Record) -> None:
        if isinstance(record.sender, UnreadableError):
            self._bury(record, 0, record.value, record.sender)
            return
        try:
            for index, raw in enumerate(split(record.value)):
                if (parsed := self._parse(record, index, raw)) is not None:
                    event = as_wire(parsed.event)
                    rows = self._rows_of(event)
                    rows.add(event, record, index)
                    rows.settle(len(rows) - 1, event, parsed.extra)
        except UnreadableError as why:
            self._bury(record, 0, record.value, why)

    def _settle(self, rows: Rows, row: int) -> bool:
        """Read a doubtful row the slow way; False where it became a dead letter."""
        record, index = rows.records[row], rows.indexes[row]
        parsed = self._parse(record, index, self._raw(record, index))
        if parsed is not None:
            rows.settle(row, as_wire(parsed.event), parsed.extra)
        return parsed is not None

    def _parse(self, record: Record, index: int, raw: bytes) -> Parsed | None:
        assert isinstance(record.sender, Sender)
        try:
            parsed = parse(raw, record.kind)
            _check(parsed, record.sender)
        except UnreadableError as why:
            self._bury(record, index, raw, why)
            return None
        return parsed

    def _raw(self, record: Record, index: int) -> bytes:
        """An event's own bytes. The parts of the last batch are kept: there may be 10,000."""
        if self._parts[0] is not record:
            self._parts = (record, list(split(record.value)))
        return self._parts[1][index]

    def _fits(self, rows: Rows, row: int, build: _Build) -> bool:
        try:
            build(rows.only(row), self.source)
        except _UNFIT as error:
            record, index = rows.records[row], rows.indexes[row]
            why = UnreadableError("unstorable", str(error))
            self._bury(record, index, self._raw(record, index), why)
            return False
        return True

    def _bury(self, at: Record, index: int, raw: bytes | None, why: UnreadableError) -> None:
        self.letters.append(
            {
                "id": f"{self.source}/{at.topic}/{at.partition}/{at.position}/{index}",
                "reason": why.reason,
                "detail": why.detail,
                "source": self.source,
                "topic": at.topic,
                "partition": at.partition,
                "position": at.position,
                "batch_index": index,
                "bytes": raw,
                "sender": _sender_json(at.sender),
            }
        )


def _sender_json(sender: Sender | UnreadableError) -> str | None:
    """Who may send it again as he sent it; None where the source itself refuses it."""
    return msgspec.json.encode(sender).decode() if isinstance(sender, Sender) else None


def _check(parsed: Parsed, sender: Sender) -> None:
    event = parsed.event
    check_time(event)
    if isinstance(event, Feedback):
        _permit("source", event.source, sender.sources)
        if (problem := problem_with(event)) is not None:
            raise UnreadableError(*problem)
    else:
        _permit("model", event.model, sender.models)


def _permit(what: str, value: str, permitted: frozenset[str] | None) -> None:
    if permitted is not None and value not in permitted:
        names = ", ".join(sorted(permitted)) or "none"
        raise UnreadableError(f"{what}_not_permitted", f"{what} {value!r}; permitted here: {names}")
