"""Records → tables and dead letters. Pure, and never raises, whatever a sender sends.

Most records go the fast way: typed, column by column, free JSON left as its bytes. An event with
anything unusual about it goes the slow way through `parse`, which decides.
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
from adaptd.daemon.domain.ingest import ADDRESS_COLUMNS, Decoded, Span
from adaptd.daemon.wire.events import Feedback
from adaptd.daemon.wire.feedback import problem_with

__all__ = ["SIGNED", "Record", "Sender", "decode"]

_UNFIT = (pa.ArrowException, OverflowError, ValueError, TypeError)
_Build = Callable[[Rows, str], pa.Table]
_Doubt = Callable[[Rows], set[int]]


def decode(records: Iterable[Record], *, source: str, spans: Sequence[Span]) -> Decoded:
    """Decode records: every event of every record becomes a row of one of the three tables.

    1. Read each record the fast way; what cannot be, the slow way (`_Work.take_records`).
    2. Read doubtful rows of interactions and feedback the slow way (`_Work.build_table`).
    3. Build the tables. A row that does not fit its column becomes a dead letter, as does every
       event that the slow way refuses.
    """
    work = _Work(source)
    work.take_records(records)
    interactions = work.build_table(work.interactions, doubtful_interactions, interactions_table)
    feedback = work.build_table(work.feedback, doubtful_feedback, feedback_table)
    return Decoded(source, interactions, feedback, dead_letters_table(work.letters), spans)


class _Work:
    """The rows and dead letters of one call of `decode`."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.interactions = Rows()
        self.feedback = Rows()
        self.letters: list[dict[str, Any]] = []
        self._last_batch: tuple[Record | None, list[bytes]] = (None, [])

    def take_records(self, records: Iterable[Record]) -> None:
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

    def build_table(self, rows: Rows, doubts: _Doubt, build: _Build) -> pa.Table:
        """Build a table of the rows that can be stored; the others become dead letters."""
        while doubtful := doubts(rows):
            rows = rows.without({row for row in doubtful if not self._read_slowly(rows, row)})
        try:
            return build(rows, self.source)
        except _UNFIT:
            unfit = {row for row in range(len(rows)) if not self._keep_fitting(rows, row, build)}
            return build(rows.without(unfit), self.source)

    def _rows_of(self, event: Any) -> Rows:
        return self.interactions if isinstance(event, WireInteraction) else self.feedback

    def _take_slowly(self, record: Record) -> None:
        if isinstance(record.sender, UnreadableError):
            self._add_letter(record, 0, record.value, record.sender)
            return
        try:
            for index, raw in enumerate(split(record.value)):
                if (parsed := self._parse_event(record, index, raw)) is not None:
                    event = as_wire(parsed.event)
                    rows = self._rows_of(event)
                    rows.add(event, record, index)
                    rows.settle(len(rows) - 1, event, parsed.extra)
        except UnreadableError as why:
            self._add_letter(record, 0, record.value, why)

    def _read_slowly(self, rows: Rows, row: int) -> bool:
        """Read a doubtful row the slow way. False: it became a dead letter."""
        record, index = rows.records[row], rows.indexes[row]
        parsed = self._parse_event(record, index, self._find_bytes(record, index))
        if parsed is not None:
            rows.settle(row, as_wire(parsed.event), parsed.extra)
        return parsed is not None

    def _parse_event(self, record: Record, index: int, raw: bytes) -> Parsed | None:
        assert isinstance(record.sender, Sender)
        try:
            parsed = parse(raw, record.kind)
            _check_event(parsed, record.sender)
        except UnreadableError as why:
            self._add_letter(record, index, raw, why)
            return None
        return parsed

    def _find_bytes(self, record: Record, index: int) -> bytes:
        """Return an event's own bytes."""
        # The parts of the last batch are kept, since each of its 10,000 events may be asked for.
        if self._last_batch[0] is not record:
            self._last_batch = (record, list(split(record.value)))
        return self._last_batch[1][index]

    def _keep_fitting(self, rows: Rows, row: int, build: _Build) -> bool:
        try:
            build(rows.only(row), self.source)
        except _UNFIT as error:
            record, index = rows.records[row], rows.indexes[row]
            why = UnreadableError("unstorable", str(error))
            self._add_letter(record, index, self._find_bytes(record, index), why)
            return False
        return True

    def _add_letter(self, at: Record, index: int, raw: bytes | None, why: UnreadableError) -> None:
        self.letters.append(
            {
                "id": f"{self.source}/{at.topic}/{at.partition}/{at.position}/{index}",
                "reason": why.reason,
                "detail": why.detail,
                "source": self.source,
                "bytes": raw,
                "sender": _sender_json(at.sender),
            }
            | dict(zip(ADDRESS_COLUMNS, (at.topic, at.partition, at.position, index), strict=True))
        )


def _sender_json(sender: Sender | UnreadableError) -> str | None:
    # Kept so that the letter can be redriven with the same rights. The source's refusal has none.
    return msgspec.json.encode(sender).decode() if isinstance(sender, Sender) else None


def _check_event(parsed: Parsed, sender: Sender) -> None:
    event = parsed.event
    check_time(event)
    if isinstance(event, Feedback):
        _check_permitted("source", event.source, sender.sources)
        if (problem := problem_with(event)) is not None:
            raise UnreadableError(*problem)
    else:
        _check_permitted("model", event.model, sender.models)


def _check_permitted(what: str, value: str, permitted: frozenset[str] | None) -> None:
    if permitted is not None and value not in permitted:
        names = ", ".join(sorted(permitted)) or "none"
        raise UnreadableError(f"{what}_not_permitted", f"{what} {value!r}; permitted here: {names}")
