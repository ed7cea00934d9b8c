"""The sink alone against a fake log and a simple model of what it must hold.

Chunks, rewinds, overlaps and holes; copies within and beyond the window; a clock that jumps both
ways; errors at every place of the transaction, before and after its commit; restarts on the same
file, crashes with what the write-ahead log holds; partitions that are forgotten and made anew.
"""

import asyncio
import shutil
import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from adaptd.consumers.decoding.decode import SIGNED, Record, decode
from adaptd.daemon.domain.ingest import KAFKA, Decoded, LogRange, Partition, Span
from adaptd.daemon.store.database.database import Database, rows
from adaptd.daemon.wire.errors import ChainError, HaltError, StoreError
from tests.chaos.failpoints import (
    AFTER_COMMIT,
    BEFORE_ANSWER,
    Failpoints,
    WatchedSink,
    places,
    watch,
)
from tests.support.event_samples import a_rating, an_interaction, as_bytes

WINDOW = timedelta(hours=24)
_PARTS = tuple(Partition("events", number) for number in range(2))
_PLACES = [place for place in asyncio.run(places()) if "advisory" not in place]
_COMMITTED = (AFTER_COMMIT, BEFORE_ANSWER)
_KINDS = st.sampled_from(["new", "new", "rating", "copy", "copy", "poison", "gap"])
_EVENTS = """
SELECT "partition", position, id, ingested_at FROM {} WHERE source = 'kafka' ORDER BY rowid
"""
_HELD = (
    _EVENTS.format("interactions"),
    _EVENTS.format("feedback"),
    """SELECT "partition", position FROM dead_letters ORDER BY rowid""",
    "SELECT interactions, feedback, dead_letters, duplicates, fenced FROM ingest_totals",
)


class Entry(NamedTuple):
    """A record of the log. `id` None: poison. Copies share their id and value."""

    offset: int
    id: str | None
    value: bytes
    is_rating: bool = False


class Stored(NamedTuple):
    partition: int
    offset: int
    id: str
    ingested_at: datetime


class Model:
    """What the store must hold, in the fewest words."""

    def __init__(self) -> None:
        self.log: dict[Partition, list[Entry]] = {part: [] for part in _PARTS}
        self.ends = dict.fromkeys(_PARTS, 0)
        self.next: dict[Partition, int] = {}
        self.rows: dict[str, list[Stored]] = {"interactions": [], "feedback": []}
        self.letters: list[tuple[int, int]] = []
        self.totals: Counter[str] = Counter()
        self.sent: list[Entry] = []

    @property
    def newest(self) -> datetime:
        """When the last row was stored."""
        times = [rows[-1].ingested_at for rows in self.rows.values() if rows]
        return max(times, default=datetime(1970, 1, 1, tzinfo=UTC))

    def take(self, part: Partition, entries: list[Entry], end: int, now: datetime) -> None:
        """A chunk that was committed at `now`."""
        for entry in entries:
            if entry.offset < self.next[part]:
                self.totals["fenced"] += 1
            elif entry.id is None:
                self.letters.append((part.number, entry.offset))
                self.totals["dead_letters"] += 1
            else:
                self._take_event(part, entry, entry.id, now)
        self.next[part] = max(self.next[part], end)

    def _take_event(self, part: Partition, entry: Entry, name: str, now: datetime) -> None:
        table = "feedback" if entry.is_rating else "interactions"
        if any(row.id == name and row.ingested_at >= now - WINDOW for row in self.rows[table]):
            self.totals["duplicates"] += 1
            return
        self.rows[table].append(Stored(part.number, entry.offset, name, now))
        self.totals[table] += 1


class SinkMachine(RuleBasedStateMachine):
    """`delivered` and `failed` count over all runs: events handed over, and writes made to fail."""

    delivered = 0
    failed = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.home = Path(tempfile.mkdtemp(prefix="sink-"))
        self.lives = 0
        self.model = Model()
        self.failpoints = Failpoints()
        self.now = datetime(2026, 11, 1, tzinfo=UTC)
        self.seals: list[tuple[datetime, int]] = []
        self._open(self._path())

    @initialize()
    def pin_all(self) -> None:
        for part in _PARTS:
            self._pin(part)

    @rule(part=st.sampled_from(_PARTS), kinds=st.lists(_KINDS, min_size=1, max_size=8))
    def append(self, part: Partition, kinds: list[str]) -> None:
        """Producers add to the log; a gap is what compaction or a transaction leaves."""
        for kind in kinds:
            offset = self.model.ends[part]
            self.model.ends[part] = offset + 1
            if kind != "gap":
                entry = self._made(kind, offset)
                self.model.log[part].append(entry)
                self.model.sent.append(entry)

    @rule(
        part=st.sampled_from(_PARTS),
        back=st.integers(0, 6),
        length=st.integers(1, 10),
        both=st.booleans(),
        place=st.none() | st.sampled_from(_PLACES),
    )
    def deliver(
        self, part: Partition, back: int, length: int, both: bool, place: str | None
    ) -> None:
        """A write of one chunk or of several; `back`: how far it reaches behind what is stored."""
        chunks = [self._chunk(part, self.model.next.get(part, 0) - back, length)]
        if both:
            other = _PARTS[1 - part.number]
            chunks.append(self._chunk(part, chunks[0][2], length))
            chunks.append(self._chunk(other, self.model.next.get(other, 0), length))
        chunks = [chunk for chunk in chunks if chunk[3]]
        if any(chunk[0] not in self.model.next for chunk in chunks):
            self._refuses(chunks, HaltError)
            return
        if chunks:
            self._writes(chunks, place)

    @rule(part=st.sampled_from(_PARTS), ahead=st.integers(1, 5))
    def deliver_after_a_hole(self, part: Partition, ahead: int) -> None:
        stored = self.model.next.get(part, 0)
        end = stored + ahead + 1
        entry = Entry(stored + ahead, "hole", as_bytes(an_interaction(id="hole")))
        self._refuses(
            [(part, stored + ahead, end, [entry])],
            ChainError if part in self.model.next else HaltError,
        )

    @rule(hours=st.sampled_from([1, 7, 25, 24 * 365, -1, -30, -24 * 365]))
    def move_the_clock(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        """A new process on the same file, or on what a kill leaves: it and its write-ahead log."""
        old = self._path()
        if clean:
            self.database.close()
            self._open(old)
            return
        self.lives += 1
        for file in self.home.glob(f"{old.name}*"):
            shutil.copyfile(file, self.home / file.name.replace(old.stem, self._path().stem))
        self.database.close()
        self._open(self._path())

    @rule()
    def seal(self) -> None:
        as_of = self._run(self.sink.seal())
        self.seals.append((as_of, sum(map(len, self.model.rows.values()))))
        assert all(row.ingested_at <= as_of for rows in self.model.rows.values() for row in rows)

    @rule(part=st.sampled_from(_PARTS), jump=st.integers(0, 5))
    def resync_past_retention(self, part: Partition, jump: int) -> None:
        """The broker lacks what would be next; what it has is gone on with."""
        earliest = self.model.next.get(part, 0) + jump
        self.model.ends[part] = max(self.model.ends[part], earliest)
        ranges = {
            at: LogRange("t", earliest if at == part else 0, self.model.ends[at]) for at in _PARTS
        }
        self._resync(ranges)
        self.model.next = {at: self.model.next.get(at, ranges[at].earliest) for at in _PARTS}
        self.model.next[part] = earliest

    @precondition(lambda self: len(self.model.next) == len(_PARTS))
    @rule(part=st.sampled_from(_PARTS))
    def resync_without_a_partition(self, part: Partition) -> None:
        """It is forgotten, and begins anew once there is one of its name."""
        other = _PARTS[1 - part.number]
        self._resync({other: LogRange("t", 0, self.model.ends[other])})
        del self.model.next[part]
        self.model.log[part], self.model.ends[part] = [], 0

    @precondition(lambda self: len(self.model.next) < len(_PARTS))
    @rule()
    def pin_again(self) -> None:
        for part in _PARTS:
            self._pin(part)

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        interactions, feedback, letters, totals = self._ask(*_HELD)
        assert [Stored(*row.values()) for row in interactions] == self.model.rows["interactions"]
        assert [Stored(*row.values()) for row in feedback] == self.model.rows["feedback"]
        assert [(row["partition"], row["position"]) for row in letters] == self.model.letters
        for found in totals:
            assert found == {name: self.model.totals[name] for name in found}
        stored = self._run(self.sink.offsets(KAFKA))
        assert {at: offset.next_offset for at, offset in stored.items()} == self.model.next

    @invariant()
    def what_was_sealed_stays_as_it_was(self) -> None:
        times = [row.ingested_at for table in self.model.rows.values() for row in table]
        for as_of, count in self.seals:
            assert sum(time <= as_of for time in times) == count

    def teardown(self) -> None:
        self.database.close()
        self.loop.close()
        shutil.rmtree(self.home)

    def _made(self, kind: str, offset: int) -> Entry:
        if kind == "copy" and self.model.sent:
            return self.model.sent[-1 - offset % len(self.model.sent)]._replace(offset=offset)
        name = f"e{len(self.model.sent)}"
        if kind == "poison":
            return Entry(offset, None, b"{broken")
        if kind == "rating":
            return Entry(offset, name, as_bytes(a_rating("e0", id=name)), is_rating=True)
        return Entry(offset, name, as_bytes(an_interaction(id=name)))

    def _chunk(
        self, part: Partition, start: int, length: int
    ) -> tuple[Partition, int, int, list[Entry]]:
        """(partition, start, end, records): up to `length` of the log from `start` on."""
        start = max(0, start)
        found = [entry for entry in self.model.log[part] if entry.offset >= start][:length]
        return part, start, found[-1].offset + 1 if found else start, found

    def _writes(self, chunks: list[Any], place: str | None) -> None:
        """Committed, or failed at `place` and so committed only where that comes after it."""
        if place is not None:
            self.failpoints.arm(place, "raise")
        committed = True
        SinkMachine.delivered += sum(len(entries) for *_, entries in chunks)
        try:
            self._run(self.sink.write(_decoded(chunks)))
        except (StoreError, duckdb.Error):
            assert place is not None
            SinkMachine.failed += 1
            committed = place in _COMMITTED
        self.failpoints.disarm()
        if committed:
            # The time is the sink's to choose, but later than of any row before it.
            now = self._run(self.sink.offsets(KAFKA))[chunks[-1][0]].updated_at
            assert now > self.model.newest
            assert now >= self.now
            assert all(now > as_of for as_of, _ in self.seals)
            for part, _, end, entries in chunks:
                self.model.take(part, entries, end, now)

    def _refuses(self, chunks: list[Any], error: type[Exception]) -> None:
        if not chunks:
            return
        with pytest.raises(HaltError) as caught:
            self._run(self.sink.write(_decoded(chunks)))
        assert caught.type is error

    def _pin(self, part: Partition) -> None:
        self._run(self.sink.pin(KAFKA, {part: LogRange("t", 0, 0)}))
        self.model.next.setdefault(part, 0)

    def _resync(self, ranges: dict[Partition, LogRange]) -> None:
        self._run(self.sink.resync(KAFKA, ranges, actor="ada", reason="a gap", evidence=None))

    def _ask(self, *statements: str) -> list[list[dict[str, Any]]]:
        return self._run(
            self.database.read(lambda cursor: [rows(cursor, one) for one in statements])
        )

    def _open(self, path: Path) -> None:
        self.database = watch(Database.open(path), self.failpoints)
        # A seal that no snapshot recorded is gone with its process.
        self.seals = [seal for seal in self.seals if seal[0] <= self.model.newest]
        self.sink = WatchedSink(
            self.database, self.failpoints, dedupe_window=WINDOW, clock=lambda: self.now
        )

    def _path(self) -> Path:
        return self.home / f"life{self.lives}.duckdb"

    def _run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)


def _decoded(chunks: list[Any]) -> Decoded:
    records = [
        Record(entry.value, part.topic, part.number, entry.offset, SIGNED, None)
        for part, _, _, entries in chunks
        for entry in entries
    ]
    made_at = datetime(2026, 11, 1, tzinfo=UTC)
    spans = [Span(part, start, end, made_at) for part, start, end, _ in chunks]
    return decode(records, source=KAFKA, spans=spans)
