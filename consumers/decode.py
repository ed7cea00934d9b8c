"""Records → tables and dead letters. Pure, and it never raises: nothing a sender sends stops it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from consumers.feedback import check_feedback
from consumers.parse import Kind, Parsed, UnreadableError, check_time, parse, split
from consumers.tables import (
    Row,
    dead_letters_table,
    feedback_table,
    interactions_table,
)
from daemon.domain.events import Feedback, Interaction
from daemon.domain.ingest import GATEWAY, Decoded, Span

_UNFIT = (pa.ArrowException, OverflowError, ValueError, TypeError)


@dataclass(frozen=True, slots=True)
class Sender:
    """Who vouches for a record, and so what it may say.

    `sources` and `models` None permit every source of feedback, every alias. `stamps_tenant` puts
    the sender's own tenant on its events, whatever they claim.
    """

    trusted: bool
    principal: str | None
    sources: frozenset[str] | None
    models: frozenset[str] | None = None
    stamps_tenant: bool = False
    tenant: str | None = None


SIGNED = Sender(trusted=True, principal=GATEWAY, sources=None)


class Record(NamedTuple):
    """A message as its source delivered it. `kind`: what its topic holds; None: either."""

    value: bytes | None
    topic: str
    partition: int
    position: int
    sender: Sender | UnreadableError  # UnreadableError: the source itself refuses it
    kind: Kind | None


def decode(records: Iterable[Record], *, source: str, spans: Sequence[Span]) -> Decoded:
    """Every event of every record becomes a row of one of the three tables."""
    work = _Work(source)
    for record in records:
        work.take(record)
    interactions = work.table(work.interactions, interactions_table)
    feedback = work.table(work.feedback, feedback_table)
    return Decoded(source, interactions, feedback, dead_letters_table(work.letters), spans)


class _Work:
    """Rows and dead letters as they come."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.interactions: list[Row] = []
        self.feedback: list[Row] = []
        self.letters: list[dict[str, Any]] = []

    def take(self, record: Record) -> None:
        if isinstance(record.sender, UnreadableError):
            self._bury(record, 0, record.value, record.sender, sender=None)
            return
        try:
            for index, raw in enumerate(split(record.value)):
                self._take_event(record, record.sender, index, raw)
        except UnreadableError as why:
            self._bury(record, 0, record.value, why, sender=record.sender)

    def table(self, rows: list[Row], build: Callable[[Sequence[Row], str], pa.Table]) -> pa.Table:
        """The rows that fit their columns; the others become dead letters."""
        try:
            return build(rows, self.source)
        except _UNFIT:
            return build([row for row in rows if self._fits(row, build)], self.source)

    def _take_event(self, record: Record, sender: Sender, index: int, raw: bytes) -> None:
        try:
            parsed = parse(raw, record.kind)
            _check(parsed, sender)
        except UnreadableError as why:
            self._bury(record, index, raw, why, sender=sender)
            return
        row = Row(
            parsed.event,
            parsed.extra,
            sender.tenant if sender.stamps_tenant else parsed.event.tenant,
            sender.trusted,
            sender.principal,
            record.topic,
            record.partition,
            record.position,
            index,
            raw,
        )
        (self.interactions if isinstance(parsed.event, Interaction) else self.feedback).append(row)

    def _fits(self, row: Row, build: Callable[[Sequence[Row], str], pa.Table]) -> bool:
        try:
            build([row], self.source)
        except _UNFIT as error:
            why = UnreadableError("unstorable", str(error))
            self._bury(row, row.batch_index, row.raw, why, sender=_sender_of(row))
            return False
        return True

    def _bury(
        self,
        at: Record | Row,
        index: int,
        raw: bytes | None,
        why: UnreadableError,
        *,
        sender: Sender | None,
    ) -> None:
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
                "sender": None if sender is None else msgspec.json.encode(sender).decode(),
            }
        )


def _sender_of(row: Row) -> Sender:
    """What was permitted stays permitted, and the tenant is decided."""
    return Sender(row.trusted, row.principal, None, stamps_tenant=True, tenant=row.tenant)


def _check(parsed: Parsed, sender: Sender) -> None:
    event = parsed.event
    check_time(event)
    if isinstance(event, Feedback):
        _permit("source", event.source, sender.sources)
        check_feedback(event)
    else:
        _permit("model", event.model, sender.models)


def _permit(what: str, value: str, permitted: frozenset[str] | None) -> None:
    if permitted is not None and value not in permitted:
        names = ", ".join(sorted(permitted)) or "none"
        raise UnreadableError(f"{what}_not_permitted", f"{what} {value!r}; permitted here: {names}")
