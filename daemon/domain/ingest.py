"""Values between a source of events (Kafka, HTTP) and the store. No I/O.

An event's address is (source, topic, partition, position, index): index counts within a batch
message. Offsets of a source and the rows read up to them are stored in one transaction (D4).
"""

# Arrow has no types.
# pyright: reportMissingTypeStubs=false
# pyright: reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa  # the base install has no Arrow

KAFKA = "kafka"
HTTP = "http"
REDRIVE = "redrive"
LIVE_SOURCES = frozenset({KAFKA, HTTP})  # others may bring events of any age
GATEWAY = "gateway"  # principal of events signed by a gateway or sent with the control token


class Partition(NamedTuple):
    topic: str
    number: int


HTTP_PARTITION = Partition("", 0)  # the HTTP door counts its requests here


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Place of one event: `position` is Kafka's offset or the HTTP request's number."""

    topic: str
    partition: int
    position: int
    index: int


# The columns of an address, in the order of its fields, in every table of events and dead letters.
ADDRESS_COLUMNS = ("topic", "partition", "position", "batch_index")


def addresses_of(table: pa.Table) -> list[Address]:
    """List the address of every row of a table of events or dead letters."""
    columns = (table[name].to_pylist() for name in ADDRESS_COLUMNS)
    return [Address(*values) for values in zip(*columns, strict=True)]


@dataclass(frozen=True, slots=True)
class StoredOffset:
    """Progress of a partition: everything before `next_offset` is stored, nothing from it on."""

    next_offset: int
    cluster_id: str | None = None
    topic_id: str | None = None
    record_at: datetime | None = None  # the last stored record's time at the broker
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets of one chunk: from `start`, the end of the chunk before, up to `end` (excluded).

    The offsets of its records may have gaps: compaction and transaction markers leave them.
    """

    partition: Partition
    start: int
    end: int
    record_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """Chunks ready to store: every event of every record in `spans` is a row of exactly one table.

    The tables have the columns of the store's tables, less those the store itself fills in.
    """

    source: str
    interactions: pa.Table
    feedback: pa.Table
    dead_letters: pa.Table
    spans: Sequence[Span]


@dataclass(frozen=True, slots=True)
class Written:
    """Result of one transaction. Duplicates and fenced rows were stored before: no error."""

    interactions: int = 0
    feedback: int = 0
    dead_letters: int = 0
    fenced: int = 0  # rows before the stored offset: read again after a rewind
    duplicates: frozenset[Address] = frozenset()
    unstorable: frozenset[Address] = frozenset()  # became dead letters at the store
    barred: frozenset[Address] = frozenset()  # of erased people: only their number is kept
    next_offsets: Mapping[Partition, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogRange:
    """Offsets that the broker still has of a partition: `earliest` up to `end` (excluded)."""

    topic_id: str | None
    earliest: int
    end: int
    cluster_id: str | None = None


def is_same_log(stored: StoredOffset, found: LogRange) -> bool:
    """Say whether reading may go on in the log that was found."""
    return not (
        is_other(stored.cluster_id, found.cluster_id) or is_other(stored.topic_id, found.topic_id)
    )


def is_other(stored: str | None, found: str | None) -> bool:
    """Say whether two ids differ. An id that one side does not know tells nothing."""
    return stored is not None and found is not None and stored != found


@dataclass(frozen=True, slots=True)
class Halt:
    """Ingestion stopped until a person decides."""

    halted_at: datetime
    reason: str
    detail: Any
    cleared_at: datetime | None = None
