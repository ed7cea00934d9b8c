"""The event store in memory, fed like the consumer feeds it."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from adaptd.consumers.decoding.arrow_tables import DEAD_LETTERS, FEEDBACK, INTERACTIONS
from adaptd.consumers.decoding.decode import SIGNED, Record, Sender, decode
from adaptd.consumers.decoding.json_events import UnreadableError
from adaptd.daemon.domain.ingest import KAFKA, Decoded, LogRange, Partition, Span, Written
from adaptd.daemon.store.database.database import Database, rows
from adaptd.daemon.store.ingest.event_reads import EventReads
from adaptd.daemon.store.ingest.sink import EventStore
from tests.support.clock import Clock
from tests.support.event_samples import NOON, as_bytes

EVENTS = Partition("events", 0)
UNSIGNED = Sender(trusted=False, principal=None, sources=frozenset({"user"}))


class Ingesting:
    """A store, its clock, and one partition that events are appended to."""

    def __init__(self, database: Database, now: Clock | datetime | None = None) -> None:
        self.database = database
        self.clock = now if isinstance(now, Clock) else Clock(now or NOON + timedelta(hours=1))
        self.sink = EventStore(database, dedupe_window=timedelta(days=1), clock=self.clock)
        self.reads = EventReads(database)
        self.next = 0

    async def pin(self, partition: Partition = EVENTS, start: int = 0) -> None:
        await self.sink.pin(KAFKA, {partition: LogRange("topic-id", start, start, "c")})

    async def add(
        self,
        *events: Any,
        sender: Sender | UnreadableError = SIGNED,
        at: datetime | None = None,
    ) -> Written:
        """Store events as the next chunk of the partition, as if it were `at`."""
        self.clock.now = at or self.clock.now
        await self.pin()
        written = await self.sink.write(chunk(events, start=self.next, sender=sender))
        self.next += len(events)
        return written

    async def ask(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        return await self.database.read(lambda cursor: rows(cursor, statement, **values))


def chunk(
    events: Iterable[Any],
    *,
    start: int,
    sender: Sender | UnreadableError = SIGNED,
    partition: Partition = EVENTS,
    begin: int | None = None,
) -> Decoded:
    """A chunk of consecutive offsets from `start`; `begin` is where the one before it ended."""
    values = [event if isinstance(event, bytes) else as_bytes(event) for event in events]
    records = [
        Record(value, partition.topic, partition.number, start + index, sender, None)
        for index, value in enumerate(values)
    ]
    span = Span(partition, start if begin is None else begin, start + len(records))
    return decode(records, source=KAFKA, spans=[span])


def no_events(*spans: Span) -> Decoded:
    return Decoded(
        KAFKA,
        INTERACTIONS.empty_table(),
        FEEDBACK.empty_table(),
        DEAD_LETTERS.empty_table(),
        spans,
    )
