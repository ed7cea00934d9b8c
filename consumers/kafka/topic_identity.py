"""Whether the topics are there, are still the same, and have what is to be read next."""

import asyncio
from collections.abc import Callable, Collection

import structlog

from adaptd.consumers.kafka.gaps import GapError, find_gaps
from adaptd.consumers.kafka.topic_admin import BrokerAwayError, Cluster, TopicAdmin
from adaptd.daemon.domain.ingest import KAFKA, LogRange, Partition
from adaptd.daemon.domain.ports import EventSink

_log = structlog.get_logger(__name__)
_CONFIRMATIONS = 3  # a broker that just started may not know its topics yet
_ASK_AGAIN_S = 1.0
_LOOKS = 5  # until two in a row see the same


class Lookout:
    """Asks the broker with the admin client. `waiting` is told what it waits for."""

    def __init__(
        self,
        admin: TopicAdmin,
        sink: EventSink,
        *,
        names: tuple[str, ...],
        create_partitions: int | None,
        waiting: Callable[[str], None],
    ) -> None:
        self._admin = admin
        self._sink = sink
        self._names = names
        self._create_partitions = create_partitions
        self._waiting = waiting

    async def ready(self) -> tuple[Cluster, dict[Partition, LogRange]]:
        """Wait until the broker answers and the topics exist; make them where that is asked for.

        Raises:
            GapError: a topic that was read before is gone or made anew, or lacks what is next.
        """
        absences = 0
        while True:
            try:
                cluster, ranges = await self.look()
            except BrokerAwayError as error:
                self._waiting(str(error))
            else:
                if not (missing := cluster.missing(self._names)):
                    await self._check(ranges)
                    return cluster, ranges
                absences += 1
                await self._provide(missing, ranges, certain=absences >= _CONFIRMATIONS)
            await asyncio.sleep(_ASK_AGAIN_S)

    async def look(self) -> tuple[Cluster, dict[Partition, LogRange]]:
        """The topics as they are now, and what the broker has of them.

        Raises:
            BrokerAwayError: it does not answer.
        """
        cluster = await self.describe()
        for _ in range(_LOOKS):
            ranges = await self._admin.ranges(cluster)
            described = await self.describe()
            if described == cluster:  # else the ranges may be of a topic made anew meanwhile
                return cluster, ranges
            cluster = described
        raise BrokerAwayError("kafka", "its brokers do not agree on the topics", "Wait for them")

    async def describe(self) -> Cluster:
        """Which topics there are, also where a partition of them has no leader.

        Raises:
            BrokerAwayError: it does not answer.
        """
        return await self._admin.describe(self._names)

    async def beginnings(self, wanted: Collection[Partition]) -> dict[Partition, LogRange]:
        """What the broker has of these partitions, asked now; those that are gone are missing.

        Raises:
            BrokerAwayError: it does not answer.
        """
        _, ranges = await self._look_until(lambda _, found: found.keys() >= set(wanted))
        return {partition: ranges[partition] for partition in wanted if partition in ranges}

    async def verify(self) -> tuple[Cluster, dict[Partition, LogRange]] | None:
        """Look while it is read; None where the broker does not answer just now."""
        try:
            return await self._look_until(lambda cluster, _: not cluster.missing(self._names))
        except BrokerAwayError as error:
            self._waiting(str(error))
            return None

    async def _look_until(
        self, is_whole: Callable[[Cluster, dict[Partition, LogRange]], bool]
    ) -> tuple[Cluster, dict[Partition, LogRange]]:
        """What is there, or after some looks what is left."""
        found = await self.look()
        for _ in range(_CONFIRMATIONS - 1):
            if is_whole(*found):
                break
            await asyncio.sleep(_ASK_AGAIN_S)
            found = await self.look()
        return found

    async def _provide(
        self, missing: list[str], ranges: dict[Partition, LogRange], *, certain: bool
    ) -> None:
        stored = await self._sink.offsets(KAFKA)
        if any(partition.topic in missing for partition in stored):
            if certain:  # never make a topic anew over one that was read
                await self._check(ranges)
        elif self._create_partitions is not None:
            _log.info("creating topics", topics=missing, partitions=self._create_partitions)
            await self._create(missing, self._create_partitions)
            return
        self._waiting(
            f"topics {', '.join(missing)} do not exist. Create them, or set "
            "ADAPTD_KAFKA_CREATE_TOPICS=true"
        )

    async def _create(self, missing: list[str], partitions: int) -> None:
        try:
            await self._admin.create(missing, partitions=partitions)
        except BrokerAwayError as error:
            self._waiting(str(error))

    async def _check(self, ranges: dict[Partition, LogRange]) -> None:
        stored = await self._sink.offsets(KAFKA)
        mine = {at: offset for at, offset in stored.items() if at.topic in self._names}
        if gaps := find_gaps(mine, ranges):
            raise GapError(gaps)
