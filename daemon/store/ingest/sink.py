"""Events exactly as they came, once each: the store's side of ingestion (EventSink)."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute

from adaptd.daemon.domain.ingest import (
    LIVE_SOURCES,
    Address,
    Decoded,
    LogRange,
    Partition,
    StoredOffset,
    Written,
)
from adaptd.daemon.store.backups.restored import look_back
from adaptd.daemon.store.database.database import Connection, Database, arrow, rows
from adaptd.daemon.store.database.opening import ROW_GROUP_ROWS
from adaptd.daemon.store.database.sql_errors import store_errors
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.ingest.duplicates import NO_COPIES, Copies, find_copies
from adaptd.daemon.store.ingest.id_ranges import IdRanges
from adaptd.daemon.store.ingest.offsets import (
    advance_offsets,
    check_spans,
    load_offsets,
    pin_offsets,
    replace_offsets,
)
from adaptd.daemon.store.ingest.refused_rows import TABLES, addresses, part_unstorable
from adaptd.daemon.store.ingest.tombstones import Tombstones
from adaptd.daemon.store.lifecycle.transitions import record_transition

_SQL = statements("events")
_TICK = timedelta(microseconds=1)
# A checkpoint holds in memory what it merges; its last row group, in part full, is written again at
# the next one.
_CHECKPOINT_ROWS = 12 * ROW_GROUP_ROWS
# DuckDB keeps some 180 kB of every row group that it wrote, for as long as the file is open.
_REFRESH_ROWS = 2_000_000


def utc_now() -> datetime:
    return datetime.now(UTC)


class EventStore:
    """The EventSink over DuckDB, and the times that make snapshots repeatable.

    Dedupe is within the batch and against what was ingested in the last `dedupe_window`; an id
    that comes again later than that is taken for a new event, so keep the window longer than any
    producer retries. Sources that are not live (replays, imports, redriven letters) are compared
    with everything ever stored. There is no unique index: its cost would grow with the table (D5).
    """

    def __init__(
        self,
        database: Database,
        *,
        dedupe_window: timedelta,
        clock: Callable[[], datetime] = utc_now,
        tombstones: Tombstones | None = None,
        refresh_rows: int = _REFRESH_ROWS,
    ) -> None:
        """Events of erased people, whom `tombstones` know, become dead letters without bytes.

        After every `refresh_rows` the store's file is closed for a moment, see Database.refresh.
        """
        self._database = database
        self._tombstones = tombstones
        self._window = dedupe_window
        self._clock = clock
        self._newest: datetime | None = None  # writer thread only
        self._catches_up = True  # until the store says otherwise
        self._rows_since_checkpoint = {"interactions": 0, "feedback": 0}
        self._refresh_rows = refresh_rows
        self._rows_since_opened = 0
        self._interaction_ids = IdRanges()  # these two: writer thread only
        self._feedback_ids = IdRanges()

    async def offsets(self, source: str) -> dict[Partition, StoredOffset]:
        """How far each partition of a source is stored."""
        with store_errors():
            return await self._database.read(lambda cursor: load_offsets(cursor, source))

    async def pin(self, source: str, starts: Mapping[Partition, LogRange]) -> None:
        """Store where reading begins (`earliest`). A partition that has an offset keeps it."""
        with store_errors():
            await self._database.write(
                lambda cursor: pin_offsets(cursor, source, starts, now=self._clock())
            )

    async def write(self, decoded: Decoded) -> Written:
        """Store chunks: rows, dead letters and offsets in one transaction. Safe to repeat.

        A row that the store itself refuses becomes a dead letter too: nothing a sender sends may
        stop the stream.

        Raises:
            ChainError, HaltError: see `check_spans`; nothing was stored.
            StoreError, FreshStartError: see `write_error`; nothing was stored.
        """
        with store_errors():
            written = await self._store(*await self._without_copies(decoded))
        await self._tidy(written)
        return written

    async def resync(
        self,
        source: str,
        ranges: Mapping[Partition, LogRange],
        *,
        actor: str,
        reason: str,
        evidence: Any,
    ) -> None:
        """Accept a gap: read on from what the broker has. The gap stays on record as evidence."""

        def work(cursor: Connection) -> None:
            replace_offsets(cursor, source, ranges, now=self._clock())
            record_transition(
                cursor,
                "ingest",
                source,
                before="halted",
                after="resynced",
                actor=actor,
                reason=reason,
                evidence=evidence,
            )

        await self._database.write(work)

    async def seal(self) -> datetime:
        """An `as_of` that stays true: whatever is stored from now on has a later `ingested_at`."""

        def work(cursor: Connection) -> datetime:
            self._newest = max(self._clock(), self._last_time(cursor))
            return self._newest

        return await self._database.write(work)

    async def _without_copies(self, decoded: Decoded) -> tuple[Decoded, Copies]:
        """Before the transaction, on the reader: looking through all events takes a while."""
        if decoded.source in LIVE_SOURCES:
            return decoded, NO_COPIES
        return await self._database.read(lambda cursor: find_copies(cursor, decoded))

    async def _store(self, decoded: Decoded, copies: Copies) -> Written:
        try:
            return await self._database.write(lambda cursor: self._write(cursor, decoded, copies))
        except (duckdb.DataError, duckdb.InvalidInputException):
            return await self._database.write(
                lambda cursor: self._write_storable(cursor, decoded, copies)
            )

    async def _tidy(self, written: Written) -> None:
        """Move the log into the file, and have DuckDB forget what it knows of the file, by rows."""
        for table in self._rows_since_checkpoint:
            self._rows_since_checkpoint[table] += getattr(written, table)
        if max(self._rows_since_checkpoint.values()) >= _CHECKPOINT_ROWS:
            self._rows_since_checkpoint = dict.fromkeys(self._rows_since_checkpoint, 0)
            self._database.checkpoint_soon()
        self._rows_since_opened += written.interactions + written.feedback
        if self._rows_since_opened >= self._refresh_rows and await self._database.refresh():
            self._rows_since_opened = 0

    def _write(
        self,
        cursor: Connection,
        decoded: Decoded,
        copies: Copies,
        unstorable: frozenset[Address] = frozenset(),
    ) -> Written:
        stored = load_offsets(cursor, decoded.source)
        after = check_spans(decoded.source, decoded.spans, stored)
        now = self._next_time(cursor)
        unfenced, fenced = _fence(decoded, stored)
        since = min(self._since(cursor, now), copies.until or now)
        allowed, barred = self._bar(cursor, unfenced)
        kept, duplicates = self._drop_duplicates(cursor, allowed, since=since, now=now)
        for table in TABLES:
            _insert(cursor, _SQL[f"add_{table}"], getattr(kept, table), now)
        advance_offsets(cursor, decoded.source, after, spans=decoded.spans, now=now)
        written = Written(
            interactions=kept.interactions.num_rows,
            feedback=kept.feedback.num_rows,
            dead_letters=kept.dead_letters.num_rows,
            fenced=fenced,
            duplicates=duplicates | copies.addresses,
            unstorable=unstorable,
            barred=barred,
            next_offsets=after,
        )
        _add_totals(cursor, decoded.source, written, now)
        _count_reasons(cursor, kept.dead_letters)
        return written

    def _bar(self, cursor: Connection, decoded: Decoded) -> tuple[Decoded, frozenset[Address]]:
        if self._tombstones is None:
            return decoded, frozenset()
        return self._tombstones.part(cursor, decoded)

    def _since(self, cursor: Connection, now: datetime) -> datetime:
        """How far back duplicates are looked for; further while a restored store catches up."""
        if self._catches_up:
            as_of = look_back(cursor)
            self._catches_up = as_of is not None
            return min(now, as_of or now) - self._window
        return now - self._window

    def _write_storable(self, cursor: Connection, decoded: Decoded, copies: Copies) -> Written:
        """The slow way, after the store refused something: find it, bury it, store the rest."""
        sound, unstorable = part_unstorable(cursor, decoded)
        return self._write(cursor, sound, copies, unstorable)

    def _drop_duplicates(
        self, cursor: Connection, decoded: Decoded, *, since: datetime, now: datetime
    ) -> tuple[Decoded, frozenset[Address]]:
        key = ["id", "tenant", "trusted"]
        times = {"since": since, "now": now}
        interactions, again = _fresh(
            cursor, "fresh_interactions", decoded.interactions, key, self._interaction_ids, **times
        )
        feedback, said_again = _fresh(
            cursor,
            "fresh_feedback",
            decoded.feedback,
            [*key, "interaction"],
            self._feedback_ids,
            **times,
        )
        kept = Decoded(decoded.source, interactions, feedback, decoded.dead_letters, decoded.spans)
        return kept, again | said_again

    def _next_time(self, cursor: Connection) -> datetime:
        """Later than every time given out so far, also when the clock steps back."""
        self._newest = max(self._clock(), self._last_time(cursor) + _TICK)
        return self._newest

    def _last_time(self, cursor: Connection) -> datetime:
        if self._newest is None:
            self._newest = rows(cursor, _SQL["newest_time"])[0]["newest"]
        return self._newest or datetime(1970, 1, 1, tzinfo=UTC)


def _fence(decoded: Decoded, stored: Mapping[Partition, StoredOffset]) -> tuple[Decoded, int]:
    """Drop rows before the stored offsets; say how many there were."""
    rewound = {
        span.partition: stored[span.partition].next_offset
        for span in decoded.spans
        if span.start < stored[span.partition].next_offset
    }
    if not rewound:
        return decoded, 0
    tables = {name: _from_offsets(getattr(decoded, name), rewound) for name in TABLES}
    before = sum(getattr(decoded, name).num_rows for name in TABLES)
    kept = sum(table.num_rows for table in tables.values())
    return Decoded(source=decoded.source, spans=decoded.spans, **tables), before - kept


def _from_offsets(table: pa.Table, first: Mapping[Partition, int]) -> pa.Table:
    position = table["position"].to_numpy()
    number = table["partition"].to_numpy()
    topic = np.asarray(table["topic"].to_pylist(), dtype=object)
    keep = np.ones(table.num_rows, dtype=bool)
    for partition, next_offset in first.items():
        here = (topic == partition.topic) & (number == partition.number)
        keep &= ~(here & (position < next_offset))
    return table.filter(pa.array(keep))


def _fresh(
    cursor: Connection,
    statement: str,
    table: pa.Table,
    key: list[str],
    ids: IdRanges,
    *,
    since: datetime,
    now: datetime,
) -> tuple[pa.Table, frozenset[Address]]:
    """The rows that are new, to be stored at `now`, and the addresses of the others."""
    if table.num_rows == 0:
        return table, frozenset()
    ends: Any = pyarrow.compute.min_max(table["id"]).as_py()  # pyright: ignore[reportAttributeAccessIssue] - made at import
    low, high = ends["min"], ends["max"]
    search = ids.search(low, high, now=now)
    ids.add(low, high, at=now)
    row = pa.array(np.arange(table.num_rows))
    cursor.register("chunk_keys", table.select(key).append_column("row", row))
    try:
        values = {"since": since, "low": low, "high": high} | search._asdict()
        found = arrow(cursor, _SQL[statement], **values)["row"].to_numpy()
    finally:
        cursor.unregister("chunk_keys")
    if len(found) == table.num_rows:
        return table, frozenset()
    again = np.ones(table.num_rows, dtype=bool)
    again[found] = False
    return table.take(pa.array(found)), addresses(table.filter(pa.array(again)))


def _insert(cursor: Connection, statement: str, table: pa.Table, now: datetime) -> None:
    if table.num_rows == 0:
        return
    cursor.register("chunk", table)
    try:
        cursor.execute(statement, {"now": now})
    finally:
        cursor.unregister("chunk")


def _add_totals(cursor: Connection, source: str, written: Written, now: datetime) -> None:
    values = {
        "source": source,
        "interactions": written.interactions,
        "feedback": written.feedback,
        "dead_letters": written.dead_letters,
        "duplicates": len(written.duplicates),
        "fenced": written.fenced,
        "now": now,
    }
    cursor.execute(_SQL["add_totals"], values)


def _count_reasons(cursor: Connection, letters: pa.Table) -> None:
    for found in letters["reason"].value_counts().to_pylist():
        values = {"reason": found["values"], "letters": found["counts"]}
        cursor.execute(_SQL["add_reason"], values)
