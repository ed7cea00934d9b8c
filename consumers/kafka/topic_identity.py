"""Topic identity: whether the broker's log is still the one that was read.

The order of things when a topic is recreated (deleted, and created again under its name):

1. The store keeps the ids of the cluster and the topic beside each offset (`EventSink.pin`).
2. The broker is asked for both: at start (`TopicIdentity.wait_until_ready`), after each assignment
   (`ChunkReader.begin`), when a fetch does not find a partition (`ChunkReader.verify_topics`), and
   every 3 s (`IngestService._watch_consumer`).
3. `find_gaps` compares them. Another topic id is a gap of kind `recreated`, whatever the offsets.
4. `GapError` stops the reader: nothing more is stored, so the offsets in the error stay true.
   IngestService records the halt, and the process ends with exit code 70.
5. The next process stays halted until `adaptd ingest resync` accepts the gap. `EventSink.resync`
   replaces the offsets and ids, and reading begins at the earliest offset of the new log.

The same steps hold for another cluster, a missing partition, and offsets that are gone.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Literal, get_args

import msgspec
import structlog

from adaptd.consumers.kafka.topic_admin import BrokerAwayError, Cluster, TopicAdmin
from adaptd.daemon.domain.ingest import KAFKA, LogRange, Partition, StoredOffset, is_other
from adaptd.daemon.domain.ports import EventSink
from adaptd.daemon.wire.errors import HaltError

_log = structlog.get_logger(__name__)
_CONFIRMATIONS = 3  # a broker that just started may not know its topics yet
_ASK_AGAIN_S = 1.0
_LOOKS = 5  # until two in a row agree

GapKind = Literal["expired", "recreated", "other_cluster", "truncated", "missing"]
# While a topic is read, offsets alone may lag behind. Its identity may not change.
IDENTITY_KINDS: frozenset[GapKind] = frozenset({"recreated", "other_cluster", "missing"})
ALL_KINDS: frozenset[GapKind] = frozenset(get_args(GapKind))


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """The reason why a partition cannot simply be read on.

    `next_offset` is what would be read next; the broker has `earliest` up to `end` (excluded) under
    `topic_id_found`. `lost` counts the offsets that are gone for good, None where that is unknown.

    expired: retention or a deletion of records passed the stored offset. recreated: the topic was
    deleted and created again. other_cluster: the broker belongs to another cluster than the one
    that was read. truncated: the log ends before what was read from it. missing: the topic or
    partition does not exist.
    """

    topic: str
    partition: int
    kind: GapKind
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
                    f"{where}: the topic was recreated (everything before {self.next_offset} of id "
                    f"{self.topic_id_stored} was read; id {self.topic_id_found} has "
                    f"{self.earliest} to {self.end}, excluded)"
                )
            case "other_cluster":
                return (
                    f"{where}: this is another cluster (everything before {self.next_offset} of "
                    f"{self.cluster_id_stored} was read; {self.cluster_id_found} has "
                    f"{self.earliest} to {self.end}, excluded)"
                )
            case "truncated":
                return (
                    f"{where}: the log ends at {self.end}, but {self.next_offset} would be next"
                    " (after a resync replay what it has: adaptd replay)"
                )
            case _:
                return f"{where}: it no longer exists; {self.next_offset} would have been next"


class GapError(HaltError):
    """Ingestion halts on gaps until a person accepts them."""

    def __init__(self, gaps: list[Gap]) -> None:
        super().__init__(
            "kafka",
            "; ".join(map(str, gaps)),
            "Restore the topic, or accept the gap with `adaptd ingest resync --reason …`",
        )
        self.gaps = gaps


def find_gaps(
    stored: Mapping[Partition, StoredOffset], found: Mapping[Partition, LogRange]
) -> list[Gap]:
    """List every stored partition that cannot be read on from its offset, in order. Pure."""
    gaps = (
        _find_gap(partition, stored[partition], found.get(partition))
        for partition in sorted(stored)
    )
    return [gap for gap in gaps if gap is not None]


def _find_gap(partition: Partition, stored: StoredOffset, found: LogRange | None) -> Gap | None:
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
    # Ids first: an offset of the old log may also exist in the new one.
    if is_other(stored.cluster_id, found.cluster_id):
        return Gap(kind="other_cluster", **known)
    if is_other(stored.topic_id, found.topic_id):
        return Gap(kind="recreated", **known)
    if stored.next_offset < found.earliest:
        return Gap(kind="expired", lost=found.earliest - stored.next_offset, **known)
    if stored.next_offset > found.end:
        return Gap(kind="truncated", **known)
    return None


class TopicIdentity:
    """Asks the broker, with the admin client, what it has of the topics that are read.

    `on_waiting` is called with the reason of each wait.
    """

    def __init__(
        self,
        admin: TopicAdmin,
        sink: EventSink,
        *,
        names: tuple[str, ...],
        create_partitions: int | None,
        on_waiting: Callable[[str], None],
    ) -> None:
        """`create_partitions` None: missing topics are not created."""
        self._admin = admin
        self._sink = sink
        self._names = names
        self._create_partitions = create_partitions
        self._on_waiting = on_waiting

    async def wait_until_ready(self) -> tuple[Cluster, dict[Partition, LogRange]]:
        """Wait until the broker answers and the topics exist. Create them where settings say so.

        Raises:
            GapError: a topic that was read is gone or recreated, or lacks what is next.
        """
        absences = 0
        while True:
            try:
                cluster, ranges = await self.read_topics()
            except BrokerAwayError as error:
                self._on_waiting(str(error))
            else:
                if not (missing := cluster.missing(self._names)):
                    await self._check_gaps(ranges)
                    return cluster, ranges
                absences += 1
                await self._create_or_wait(missing, ranges, certain=absences >= _CONFIRMATIONS)
            await asyncio.sleep(_ASK_AGAIN_S)

    async def read_topics(self) -> tuple[Cluster, dict[Partition, LogRange]]:
        """Read the topics as they are now, and what the broker has of them.

        Raises:
            BrokerAwayError: the broker does not answer.
        """
        cluster = await self.describe()
        for _ in range(_LOOKS):
            ranges = await self._admin.ranges(cluster)
            described = await self.describe()
            if described == cluster:  # else the ranges may be of a topic recreated in between
                return cluster, ranges
            cluster = described
        raise BrokerAwayError("kafka", "its brokers do not agree on the topics", "Wait for them")

    async def describe(self) -> Cluster:
        """Read which topics exist, also where a partition of them has no leader.

        Raises:
            BrokerAwayError: the broker does not answer.
        """
        return await self._admin.describe(self._names)

    async def read_ranges(self, wanted: Collection[Partition]) -> dict[Partition, LogRange]:
        """Read what the broker has of these partitions now. Those that are gone are left out.

        Raises:
            BrokerAwayError: the broker does not answer.
        """
        _, ranges = await self._read_until(lambda _, found: found.keys() >= set(wanted))
        return {partition: ranges[partition] for partition in wanted if partition in ranges}

    async def try_read_topics(self) -> tuple[Cluster, dict[Partition, LogRange]] | None:
        """Read the topics while they are consumed; None where the broker does not answer."""
        try:
            return await self._read_until(lambda cluster, _: not cluster.missing(self._names))
        except BrokerAwayError as error:
            self._on_waiting(str(error))
            return None

    async def _read_until(
        self, is_complete: Callable[[Cluster, dict[Partition, LogRange]], bool]
    ) -> tuple[Cluster, dict[Partition, LogRange]]:
        """Read the topics until they are complete, three times at most."""
        found = await self.read_topics()
        for _ in range(_CONFIRMATIONS - 1):
            if is_complete(*found):
                break
            await asyncio.sleep(_ASK_AGAIN_S)
            found = await self.read_topics()
        return found

    async def _create_or_wait(
        self, missing: list[str], ranges: dict[Partition, LogRange], *, certain: bool
    ) -> None:
        stored = await self._sink.offsets(KAFKA)
        if any(partition.topic in missing for partition in stored):
            if certain:  # never recreate a topic that was read
                await self._check_gaps(ranges)
        elif self._create_partitions is not None:
            await self._create_topics(missing, self._create_partitions)
            return
        self._on_waiting(
            f"topics {', '.join(missing)} do not exist. Create them, or set "
            "ADAPTD_KAFKA_CREATE_TOPICS=true"
        )

    async def _create_topics(self, missing: list[str], partitions: int) -> None:
        try:
            await self._admin.create(missing, partitions=partitions)
        except BrokerAwayError as error:
            self._on_waiting(str(error))
        else:
            _log.info("topics_created", topics=missing, partitions=partitions)

    async def _check_gaps(self, ranges: dict[Partition, LogRange]) -> None:
        stored = await self._sink.offsets(KAFKA)
        mine = {at: offset for at, offset in stored.items() if at.topic in self._names}
        if gaps := find_gaps(mine, ranges):
            raise GapError(gaps)
