"""The store's side of ingestion (EventSink): events exactly as they came, once each."""

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
from adaptd.daemon.store.database.database import Connection, Database, registered, rows
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
from adaptd.daemon.store.ingest.refused_rows import divert_refused_rows
from adaptd.daemon.store.ingest.split import TABLES, addresses_of, split_by_statement
from adaptd.daemon.store.ingest.tombstones import Tombstones
from adaptd.daemon.store.lifecycle.transitions import record_transition
from adaptd.daemon.wire.clock import utc_now

_SQL = statements("events")
_TICK = timedelta(microseconds=1)
# A checkpoint holds in memory what it merges, and the next one writes its last row group, which is
# only partly full, again.
_CHECKPOINT_ROWS = 12 * ROW_GROUP_ROWS
# DuckDB keeps some 180 kB of every row group that it wrote, for as long as the file is open.
_REFRESH_ROWS = 2_000_000


class EventStore:
    """The EventSink over DuckDB, and the times that make snapshots repeatable.

    Events are deduplicated within the batch and against what was ingested in the last
    `dedupe_window`; an id that comes again later counts as a new event, so keep the window longer
    than any producer retries. Sources that are not live (replays, imports, redriven letters) are
    compared with everything ever stored. There is no unique index: its cost would grow with the
    table (D5).
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
        """`tombstones` turn events of erased people into dead letters without bytes.

        After every `refresh_rows` the store's file is closed for a moment; see Database.refresh.
        """
        self._database = database
        self._tombstones = tombstones
        self._window = dedupe_window
        self._clock = clock
        self._newest: datetime | None = None  # writer thread only
        self._catches_up = True  # until the store says that no restore is catching up
        self._rows_since_checkpoint = {"interactions": 0, "feedback": 0}
        self._refresh_rows = refresh_rows
        self._rows_since_opened = 0
        self._interaction_ids = IdRanges()  # writer thread only
        self._feedback_ids = IdRanges()  # writer thread only

    async def offsets(self, source: str) -> dict[Partition, StoredOffset]:
        """Return how far each partition of a source is stored."""
        with store_errors():
            return await self._database.read(lambda cursor: load_offsets(cursor, source))

    async def pin(self, source: str, starts: Mapping[Partition, LogRange]) -> None:
        """Store where reading begins (`earliest`). A partition keeps an offset that it has."""
        with store_errors():
            await self._database.write(
                lambda cursor: pin_offsets(cursor, source, starts, now=self._clock())
            )

    async def write(self, decoded: Decoded) -> Written:
        """Store chunks: rows, dead letters and offsets in one transaction. Safe to repeat.

        1. Rows of a source that is not live are compared with everything stored, on the reader
           thread, and copies left out (`find_copies`).
        2. The transaction begins on the writer thread. The chunks' spans must continue the stored
           offsets (`check_spans`).
        3. The chunks get a time that is later than every time given out before.
        4. Rows before the stored offsets are dropped: the fence against a second reader.
        5. Rows of erased people become dead letters without bytes (`Tombstones.bar`).
        6. Rows whose id was seen within the window are dropped (`_drop_duplicates`).
        7. The rows and letters that are left are inserted; offsets and totals move on; the
           transaction commits.
        8. Where DuckDB refuses a row, nothing was stored: steps 2 to 7 are repeated with every
           refused row as a dead letter (`divert_refused_rows`), since nothing a sender sends may
           stop the stream.
        9. Every so many rows a checkpoint, or a refresh of the file, follows (`_tidy_file`).

        Raises:
            ChainError, HaltError: see `check_spans`; nothing was stored.
            StoreError, FreshStartError: see `write_error`; nothing was stored.
        """
        with store_errors():
            rest, copies = await self._leave_out_copies(decoded)
            written = await self._store_rows(rest, copies)
        await self._tidy_file(written)
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
        """Accept a gap: read on from what the broker has. The evidence keeps the gap on record."""

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
        """Return an `as_of` that stays true: whatever is stored later has a later `ingested_at`."""

        def work(cursor: Connection) -> datetime:
            self._newest = max(self._clock(), self._last_time(cursor))
            return self._newest

        return await self._database.write(work)

    async def _leave_out_copies(self, decoded: Decoded) -> tuple[Decoded, Copies]:
        if decoded.source in LIVE_SOURCES:
            return decoded, NO_COPIES
        # On the reader thread: the search through all events takes a while, and commits go on.
        return await self._database.read(lambda cursor: find_copies(cursor, decoded))

    async def _store_rows(self, decoded: Decoded, copies: Copies) -> Written:
        try:
            return await self._database.write(
                lambda cursor: self._write_chunk(cursor, decoded, copies)
            )
        except (duckdb.DataError, duckdb.InvalidInputException):
            # The slow way: make letters of refused rows, store the rest.
            return await self._database.write(
                lambda cursor: self._write_storable(cursor, decoded, copies)
            )

    async def _tidy_file(self, written: Written) -> None:
        """Checkpoint and refresh the file by rows, not by time."""
        for table in self._rows_since_checkpoint:
            self._rows_since_checkpoint[table] += getattr(written, table)
        if max(self._rows_since_checkpoint.values()) >= _CHECKPOINT_ROWS:
            self._rows_since_checkpoint = dict.fromkeys(self._rows_since_checkpoint, 0)
            self._database.checkpoint_soon()
        self._rows_since_opened += written.interactions + written.feedback
        if self._rows_since_opened >= self._refresh_rows and await self._database.refresh():
            self._rows_since_opened = 0

    def _write_storable(self, cursor: Connection, decoded: Decoded, copies: Copies) -> Written:
        sound, refused = divert_refused_rows(cursor, decoded)
        return self._write_chunk(cursor, sound, copies, refused)

    def _write_chunk(
        self,
        cursor: Connection,
        decoded: Decoded,
        copies: Copies,
        refused: frozenset[Address] = frozenset(),
    ) -> Written:
        """Steps 2 to 7 of `write`, inside its transaction."""
        stored = load_offsets(cursor, decoded.source)
        after = check_spans(decoded.source, decoded.spans, stored)
        now = self._next_time(cursor)
        unfenced, fenced = _drop_fenced(decoded, stored)
        allowed = unfenced
        barred: frozenset[Address] = frozenset()
        if self._tombstones is not None:
            allowed, barred = self._tombstones.bar(cursor, unfenced)
        # Copies were searched for up to `copies.until`: what was stored since is compared here.
        since = min(self._dedupe_since(cursor, now), copies.until or now)
        kept, duplicates = self._drop_duplicates(cursor, allowed, since=since, now=now)
        for name in TABLES:
            if (table := getattr(kept, name)).num_rows:
                with registered(cursor, "chunk", table):
                    cursor.execute(_SQL[f"add_{name}"], {"now": now})
        advance_offsets(cursor, decoded.source, after, spans=decoded.spans, now=now)
        written = Written(
            interactions=kept.interactions.num_rows,
            feedback=kept.feedback.num_rows,
            dead_letters=kept.dead_letters.num_rows,
            fenced=fenced,
            duplicates=duplicates | copies.addresses,
            unstorable=refused,
            barred=barred,
            next_offsets=after,
        )
        _add_totals(cursor, decoded.source, written, now)
        _count_reasons(cursor, kept.dead_letters)
        return written

    def _dedupe_since(self, cursor: Connection, now: datetime) -> datetime:
        """Return how far back duplicates are searched for; further after a restore."""
        if self._catches_up:
            as_of = look_back(cursor)
            self._catches_up = as_of is not None
            return min(now, as_of or now) - self._window
        return now - self._window

    def _drop_duplicates(
        self, cursor: Connection, decoded: Decoded, *, since: datetime, now: datetime
    ) -> tuple[Decoded, frozenset[Address]]:
        key = ["id", "tenant", "trusted"]
        times = {"since": since, "now": now}
        interactions, again = _split_fresh(
            cursor, "fresh_interactions", decoded.interactions, key, self._interaction_ids, **times
        )
        feedback, said_again = _split_fresh(
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
        """Return a time later than every time given out so far, even when the clock steps back."""
        self._newest = max(self._clock(), self._last_time(cursor) + _TICK)
        return self._newest

    def _last_time(self, cursor: Connection) -> datetime:
        if self._newest is None:
            self._newest = rows(cursor, _SQL["newest_time"])[0]["newest"]
        return self._newest or datetime(1970, 1, 1, tzinfo=UTC)


def _drop_fenced(decoded: Decoded, stored: Mapping[Partition, StoredOffset]) -> tuple[Decoded, int]:
    """Drop rows before the stored offsets and return how many there were."""
    rewound = {
        span.partition: stored[span.partition].next_offset
        for span in decoded.spans
        if span.start < stored[span.partition].next_offset
    }
    if not rewound:
        return decoded, 0
    tables = {name: _rows_from_offsets(getattr(decoded, name), rewound) for name in TABLES}
    before = sum(getattr(decoded, name).num_rows for name in TABLES)
    kept = sum(table.num_rows for table in tables.values())
    return Decoded(source=decoded.source, spans=decoded.spans, **tables), before - kept


def _rows_from_offsets(table: pa.Table, first: Mapping[Partition, int]) -> pa.Table:
    position = table["position"].to_numpy()
    number = table["partition"].to_numpy()
    topic = np.asarray(table["topic"].to_pylist(), dtype=object)
    keep = np.ones(table.num_rows, dtype=bool)
    for partition, next_offset in first.items():
        here = (topic == partition.topic) & (number == partition.number)
        keep &= ~(here & (position < next_offset))
    return table.filter(pa.array(keep))


def _split_fresh(
    cursor: Connection,
    statement: str,
    table: pa.Table,
    key: list[str],
    ids: IdRanges,
    *,
    since: datetime,
    now: datetime,
) -> tuple[pa.Table, frozenset[Address]]:
    """Return the rows that are new, to be stored at `now`, and the addresses of the others."""
    if table.num_rows == 0:
        return table, frozenset()
    ends: Any = pyarrow.compute.min_max(table["id"]).as_py()  # pyright: ignore[reportAttributeAccessIssue] - made at import
    low, high = ends["min"], ends["max"]
    search = ids.search(low, high, now=now)
    ids.add(low, high, at=now)
    values = {"since": since, "low": low, "high": high} | search._asdict()
    fresh, again = split_by_statement(cursor, _SQL[statement], table, key, **values)
    return fresh, addresses_of(again)


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
