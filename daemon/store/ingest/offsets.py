"""How far every source is stored, partition by partition: the truth about offsets (D4)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from adaptd.daemon.domain.ingest import LogRange, Partition, Span, StoredOffset, is_same_log
from adaptd.daemon.store.database.database import Connection, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.wire.errors import ChainError, HaltError

_SQL = statements("offsets")


def load_offsets(cursor: Connection, source: str) -> dict[Partition, StoredOffset]:
    """Every partition of a source."""
    return {
        Partition(row.pop("topic"), row.pop("partition")): StoredOffset(**row)
        for row in rows(cursor, _SQL["offsets_of"], source=source)
    }


def pin_offsets(
    cursor: Connection,
    source: str,
    starts: Mapping[Partition, LogRange],
    *,
    now: datetime,
) -> None:
    """Store where reading begins; partitions that have an offset keep it, and learn ids."""
    _put(cursor, _SQL["pin_offsets"], source, starts, now=now)


def replace_offsets(
    cursor: Connection,
    source: str,
    ranges: Mapping[Partition, LogRange],
    *,
    now: datetime,
) -> None:
    """Make what the broker has the new truth: jump into its ranges, forget what it does not have.

    A partition of the same log whose offset lies in its range keeps it. One whose log now ends
    before its offset is read on from that end: most of what is left was stored already, maybe
    longer ago than duplicates are looked for. `adaptd replay` takes what was not.
    """
    stored = load_offsets(cursor, source)
    moved = {
        partition: _beginning(stored.get(partition), found)
        for partition, found in ranges.items()
        if (old := stored.get(partition)) is None
        or not is_same_log(old, found)
        or not found.earliest <= old.next_offset <= found.end
    }
    _put(cursor, _SQL["replace_offsets"], source, moved, now=now)
    for partition in stored.keys() - ranges.keys():
        cursor.execute(_SQL["forget_offset"], _key(source, partition))


def _beginning(old: StoredOffset | None, found: LogRange) -> LogRange:
    shortened = old is not None and is_same_log(old, found) and old.next_offset > found.end
    return replace(found, earliest=found.end) if shortened else found


def check_spans(
    source: str, spans: Sequence[Span], stored: Mapping[Partition, StoredOffset]
) -> dict[Partition, int]:
    """The offsets after these spans.

    Raises:
        ChainError: a span begins after what is stored, so records between would be lost.
        HaltError: a span's partition was never pinned.
    """
    after = {partition: offset.next_offset for partition, offset in stored.items()}
    for span in spans:
        where = f"{source} {span.partition.topic}[{span.partition.number}]"
        if span.partition not in after:
            raise HaltError(
                where,
                f"records {span.start} to {span.end} came before the partition's start was stored",
                "Restart; report this if it happens again",
            )
        if span.start > after[span.partition]:
            raise ChainError(
                where,
                f"a chunk starts at {span.start}, but only what lies before "
                f"{after[span.partition]} is stored",
                "Nothing is lost: reading goes on from the stored offset",
            )
        after[span.partition] = max(after[span.partition], span.end)
    return {span.partition: after[span.partition] for span in spans}


def advance_offsets(
    cursor: Connection,
    source: str,
    after: Mapping[Partition, int],
    *,
    spans: Iterable[Span],
    now: datetime,
) -> None:
    """Write the new offsets and the time of each partition's last record."""
    record_at = {span.partition: span.record_at for span in spans}
    values = _lists(source, after) | {
        "next_offsets": list(after.values()),
        "record_ats": [record_at.get(partition) for partition in after],
        "now": now,
    }
    cursor.execute(_SQL["advance_offsets"], values)


def _put(
    cursor: Connection,
    statement: str,
    source: str,
    ranges: Mapping[Partition, LogRange],
    *,
    now: datetime,
) -> None:
    values = _lists(source, ranges) | {
        "next_offsets": [found.earliest for found in ranges.values()],
        "topic_ids": [found.topic_id for found in ranges.values()],
        "cluster_ids": [found.cluster_id for found in ranges.values()],
        "now": now,
    }
    cursor.execute(statement, values)


def _lists(source: str, partitions: Iterable[Partition]) -> dict[str, Any]:
    """Partitions as the statements take them: one for all, since each takes milliseconds."""
    listed = list(partitions)
    return {
        "source": source,
        "topics": [partition.topic for partition in listed],
        "partitions": [partition.number for partition in listed],
    }


def _key(source: str, partition: Partition) -> dict[str, str | int]:
    return {"source": source, "topic": partition.topic, "partition": partition.number}
