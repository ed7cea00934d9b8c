"""Compares what producers were acknowledged with what the store holds, position by position.

Independent of the sink: it reads the producers' ledger, the topics anew with kafka-python, and the
DuckDB file read-only with statements of its own. Of the product it uses nothing.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from tests.chaos.ledger import Place, Sent

_SHOWN = 3  # of each kind of finding
_PACKED = "unpacks_too_large"  # its bytes are those of the packed batch, which no reader shows
_ROWS = """
SELECT topic, "partition", position, batch_index, id, epoch_us(ingested_at) AS ingested, rowid AS r
FROM {table} WHERE source = 'kafka' ORDER BY rowid
"""
_LETTERS = """
SELECT topic, "partition", position, batch_index, reason, bytes FROM dead_letters
WHERE source = 'kafka' ORDER BY rowid
"""
_OFFSETS = """
SELECT topic || '/' || "partition", next_offset FROM offsets WHERE source = 'kafka'
"""
_TOTALS = """
SELECT interactions, feedback, dead_letters, duplicates FROM ingest_totals WHERE source = 'kafka'
"""


class Row(NamedTuple):
    """A stored event, in the order of storing."""

    place: Place
    id: str
    ingested_us: int


@dataclass
class Held:
    """What the store holds of Kafka's events."""

    tables: dict[str, list[Row]]
    letters: dict[Place, list[tuple[str, bytes | None]]]
    next_offsets: dict[str, int]
    totals: tuple[int, int, int, int]

    @property
    def rows(self) -> Iterator[Row]:
        for rows in self.tables.values():
            yield from rows


@dataclass
class Findings:
    """`sent`: acknowledged events. A problem that is none of the three counts is told in words."""

    sent: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    problems: list[str] = field(default_factory=list)

    def note(self, what: str, found: Sequence[Any]) -> int:
        """Put a few of them into words, and count them all."""
        if found:
            shown = ", ".join(map(str, found[:_SHOWN]))
            self.problems.append(f"{len(found)} {what}: {shown}")
        return len(found)


def read_store(path: Path) -> Held:
    """The whole of it. The process that wrote it must be gone."""
    with duckdb.connect(str(path), read_only=True) as store:
        tables = {}
        for table in ("interactions", "feedback"):
            found = store.execute(_ROWS.format(table=table)).fetchall()
            tables[table] = [Row(Place(*row[:4]), row[4], row[5]) for row in found]
        letters: dict[Place, list[tuple[str, bytes | None]]] = defaultdict(list)
        for *place, reason, value in store.execute(_LETTERS).fetchall():
            letters[Place(*place)].append((reason, value))
        offsets = dict(store.execute(_OFFSETS).fetchall())
        totals = store.execute(_TOTALS).fetchone() or (0, 0, 0, 0)
    return Held(tables, dict(letters), offsets, totals)


def compare(
    held: Held,
    ledger: Sequence[Sent],
    log: Mapping[Place, bytes | None],
    *,
    starts: Mapping[str, int],
    gone: Collection[Place] = frozenset(),
    compacted: bool = False,
) -> Findings:
    """Everything that is not as it must be.

    `starts` by "topic/partition": the first offset that the log still has.
    `gone`: records that the broker lost before they could be read, as the fault made sure; they
    may be missing. `compacted`: so may any record that the log no longer has.
    """
    spared = frozenset(gone)
    due = [one for one in ledger if one.fate != "aborted" and one.place[:3] not in _heads(spared)]
    if compacted:
        due = [one for one in due if _head(one.place) in log]
    findings = Findings(sent=len(ledger))
    findings.lost = findings.note("lost", _lost(held, due))
    findings.duplicated = findings.note("duplicated", list(_duplicated(held, ledger)))
    findings.reordered = findings.note("out of order", list(_reordered(held, ledger)))
    findings.note("unlike the log", list(_unlike(ledger, log, starts, compacted=compacted)))
    findings.note("stored and should not be", list(_unexpected(held, ledger, log)))
    findings.note("dead letters that are not as they must be", list(_wrong_letters(held, due, log)))
    findings.note("partitions not read to their end", list(_behind(held, log)))
    if not compacted:
        findings.note("totals that do not add up", list(_totals(held, due)))
    return findings


def _lost(held: Held, due: Iterable[Sent]) -> list[Place]:
    """Neither stored, nor a dead letter, nor a copy of an event that is stored."""
    here = {(row.place, row.id) for row in held.rows}
    ids = {row.id for row in held.rows}
    return [
        one.place
        for one in due
        if not (
            one.place in held.letters
            if one.fate == "refused"
            else (one.place, one.id) in here or (one.fate == "event" and one.id in ids)
        )
    ]


def _duplicated(held: Held, ledger: Iterable[Sent]) -> Iterator[str]:
    """Ids stored more often than sent anew, and places with more than one row or letter."""
    allowed = Counter(one.id for one in ledger if one.fate == "again")
    for event_id, rows in Counter(row.id for row in held.rows).items():
        yield from [event_id] * (rows - 1 - allowed[event_id])
    for (place, _), rows in Counter((row.place, row.id) for row in held.rows).items():
        yield from [str(place)] * (rows - 1)
    for place, letters in held.letters.items():
        lives = sum(one.place == place for one in ledger) if len(letters) > 1 else 1
        yield from [f"dead letter {place}"] * (len(letters) - max(1, lives))


def _reordered(held: Held, ledger: Iterable[Sent]) -> Iterator[str]:
    """Rows of a partition that were stored, or sent, in another order than the log's."""
    lives = {(one.place, one.id): one.life for one in ledger}
    for rows in held.tables.values():
        last: dict[tuple[str, int, int], Row] = {}
        newest = 0
        for row in rows:
            at = (*row.place[:2], lives.get((row.place, row.id), 0))
            if at in last and row.place < last[at].place:
                yield f"{row.place} was stored after {last[at].place}"
            if row.ingested_us < newest:
                yield f"{row.place} has an earlier time than the row before it"
            last[at], newest = row, max(newest, row.ingested_us)
    sent: dict[tuple[str, str, int, int], Sent] = {}
    for one in sorted(ledger, key=lambda one: (one.producer, one.sequence, one.index)):
        at = (one.producer, one.topic, one.partition, one.life)
        if at in sent and one.place < sent[at].place:
            yield f"{one.place} was sent after {sent[at].place}"
        sent[at] = one


def _unlike(
    ledger: Iterable[Sent],
    log: Mapping[Place, bytes | None],
    starts: Mapping[str, int],
    *,
    compacted: bool,
) -> Iterator[str]:
    """Acknowledged records that the log does not have as they were sent: the broker's fault."""
    newest = max((one.life for one in ledger), default=0)
    for one in ledger:
        head = _head(one.place)
        if one.fate == "aborted":
            if head in log:
                yield f"{head} was aborted and can be read"
        elif head in log and one.life == newest:
            if one.id is not None and one.id != _id_at(log[head], one.index):
                yield f"{head} holds another event than {one.id}"
        elif one.life == newest and not compacted and one.offset >= starts[_part(one.place)]:
            yield f"{head} is not in the log"


def _unexpected(
    held: Held, ledger: Iterable[Sent], log: Mapping[Place, bytes | None]
) -> Iterator[str]:
    """Rows that nobody sent, or that were aborted or poison."""
    sent = {(one.place, one.id) for one in ledger if one.fate in ("event", "again")}
    for row in held.rows:
        if (row.place, row.id) in sent:
            continue
        if row.id != _id_at(log.get(_head(row.place)), row.place.index):  # never acknowledged
            yield f"{row.id} at {row.place}"


def _wrong_letters(
    held: Held, due: Iterable[Sent], log: Mapping[Place, bytes | None]
) -> Iterator[str]:
    """Good events refused, other reasons than sent for, and bytes that are not the record's."""
    refused = defaultdict(list)
    newest = 0
    for one in due:
        newest = max(newest, one.life)
        if one.fate == "refused":
            refused[one.place].append(one)
    for place, letters in held.letters.items():
        reason, value = letters[-1]
        reasons = {one.reason for one in refused[place]}
        if reason not in reasons:
            yield f"{place} was refused as {reason}, due was {reasons or 'none'}"
        sent = log.get(_head(place), b'{"batch"')
        whole = place.index == 0 and reason != _PACKED and not (sent or b"").startswith(b'{"batch"')
        in_log = any(one.life == newest for one in refused[place])
        if whole and in_log and not _kept(value, sent):
            yield f"{place} has other bytes than its record"


def _kept(value: bytes | None, sent: bytes | None) -> bool:
    """A dead letter keeps the bytes; of a very large record its beginning is enough."""
    if value is None or sent is None:
        return value == sent
    return value == sent or (len(sent) > len(value) >= 1_000 and sent.startswith(value))


def _behind(held: Held, log: Mapping[Place, bytes | None]) -> Iterator[str]:
    ends: dict[str, int] = {}
    for place in log:
        at = _part(place)
        ends[at] = max(ends.get(at, 0), place.offset + 1)
    for at, end in ends.items():
        if held.next_offsets.get(at, 0) < end:
            yield f"{at} is at {held.next_offsets.get(at)}, its last record before {end}"


def _totals(held: Held, due: Sequence[Sent]) -> Iterator[str]:
    """The store's own counters: every event is a row, a dead letter or a duplicate."""
    interactions, feedback, letters, duplicates = held.totals
    kept = (len(held.tables["interactions"]), len(held.tables["feedback"]))
    if (interactions, feedback) != kept:
        yield f"{(interactions, feedback)} counted, {kept} rows"
    if letters != sum(map(len, held.letters.values())):
        yield f"{letters} dead letters counted"
    if interactions + feedback + letters + duplicates != len(due):
        yield f"{interactions} + {feedback} + {letters} + {duplicates} of {len(due)}"


def _head(place: Place) -> Place:
    return place._replace(index=0)


def _part(place: Place) -> str:
    return f"{place.topic}/{place.partition}"


def _heads(places: Iterable[Place]) -> frozenset[tuple[Any, ...]]:
    return frozenset(place[:3] for place in places)


def _id_at(value: bytes | None, index: int) -> str | None:
    try:
        event = json.loads(value or b"")
    except ValueError:
        return None
    if isinstance(event, dict) and isinstance(parts := event.get("batch"), list):
        event = parts[index] if index < len(parts) else None
    return event.get("id") if isinstance(event, dict) else None
