"""What the broker no longer has of what was to be read next. Pure: never a silent jump."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from adaptd.daemon.domain.ingest import LogRange, Partition, StoredOffset, is_other
from adaptd.daemon.wire.errors import HaltError

# Offsets alone may lag behind while it is read; whose they are may not change.
OF_IDENTITY = frozenset({"recreated", "other_cluster", "missing"})
ANY = OF_IDENTITY | {"expired", "truncated"}


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Why a partition cannot simply be read on.

    `next_offset` is what would be read next; the broker has `earliest` up to `end` (excluded) under
    `topic_id_found`. `lost` counts the offsets that are gone for good, None where nobody can know.

    expired: retention or a deletion of records passed the stored offset. recreated: the topic was
    deleted and made anew. other_cluster: the broker is of another cluster than what was read.
    truncated: the log ends before what was read from it. missing: the topic or partition is not
    there.
    """

    topic: str
    partition: int
    kind: Literal["expired", "recreated", "other_cluster", "truncated", "missing"]
    next_offset: int
    earliest: int | None = None
    end: int | None = None
    topic_id_stored: str | None = None
    topic_id_found: str | None = None
    cluster_id_stored: str | None = None
    cluster_id_found: str | None = None
    lost: int | None = None

    def __str__(self) -> str:
        where = f"{self.topic}[{self.partition}]"
        match self.kind:
            case "expired":
                return f"{where}: offsets {self.next_offset} to {(self.earliest or 0) - 1} are gone"
            case "recreated":
                return (
                    f"{where}: the topic was made anew (of id {self.topic_id_stored} all before "
                    f"{self.next_offset} was read; id {self.topic_id_found} has {self.earliest} "
                    f"to {self.end}, excluded)"
                )
            case "other_cluster":
                return (
                    f"{where}: this is another cluster (of {self.cluster_id_stored} all before "
                    f"{self.next_offset} was read; {self.cluster_id_found} has {self.earliest} to "
                    f"{self.end}, excluded)"
                )
            case "truncated":
                return (
                    f"{where}: the log ends at {self.end}, but {self.next_offset} would be next"
                    " (after a resync replay what it has: adaptd replay)"
                )
            case _:
                return f"{where}: it no longer exists; {self.next_offset} would have been next"


def find_gaps(
    stored: Mapping[Partition, StoredOffset], found: Mapping[Partition, LogRange]
) -> list[Gap]:
    """Every stored partition that cannot be read on from its offset, in order."""
    gaps = (
        _gap(partition, stored[partition], found.get(partition)) for partition in sorted(stored)
    )
    return [gap for gap in gaps if gap is not None]


class GapError(HaltError):
    """Ingestion halts on gaps until a person accepts them."""

    def __init__(self, gaps: list[Gap]) -> None:
        super().__init__(
            "kafka",
            "; ".join(map(str, gaps)),
            "Restore the topic, or accept the gap with `adaptd ingest resync --reason …`",
        )
        self.gaps = gaps


def _gap(partition: Partition, stored: StoredOffset, found: LogRange | None) -> Gap | None:
    known = {
        "topic": partition.topic,
        "partition": partition.number,
        "next_offset": stored.next_offset,
        "topic_id_stored": stored.topic_id,
        "cluster_id_stored": stored.cluster_id,
    }
    if found is None:
        return Gap(kind="missing", **known)
    known |= {"earliest": found.earliest, "end": found.end, "topic_id_found": found.topic_id}
    known |= {"cluster_id_found": found.cluster_id}
    if is_other(stored.cluster_id, found.cluster_id):
        return Gap(kind="other_cluster", **known)
    if is_other(stored.topic_id, found.topic_id):
        return Gap(kind="recreated", **known)
    if stored.next_offset < found.earliest:
        return Gap(kind="expired", lost=found.earliest - stored.next_offset, **known)
    if stored.next_offset > found.end:
        return Gap(kind="truncated", **known)
    return None
