"""Between Faust and the store: where to begin, chunks into rows, and whether it all still moves."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

from adaptd.consumers.decoding.decode import decode
from adaptd.consumers.decoding.json_events import Kind
from adaptd.consumers.decoding.log_records import LogRecords, record_time
from adaptd.consumers.kafka.faust_app import Chunk
from adaptd.consumers.kafka.gaps import ANY, OF_IDENTITY, GapError, find_gaps
from adaptd.consumers.kafka.topic_admin import BrokerAwayError, Cluster
from adaptd.daemon.domain.ingest import KAFKA, Decoded, LogRange, Partition, Span
from adaptd.daemon.domain.meters import Meter
from adaptd.daemon.domain.ports import EventSink

_CLOSE_S = 10.0


class Broker(Protocol):
    """What is asked of it. Both raise BrokerAwayError where it does not answer."""

    async def describe(self) -> Cluster: ...

    async def beginnings(self, wanted: Collection[Partition]) -> dict[Partition, LogRange]:
        """What it has of these partitions; those that are gone are missing."""
        ...


class ChunkReader:
    """One run of the consumer. `failure` is done where it cannot go on."""

    def __init__(
        self,
        sink: EventSink,
        *,
        key: bytes,
        kinds: Mapping[str, Kind],
        unsigned_sources: frozenset[str],
        broker: Broker,
        meter: Meter | None = None,
    ) -> None:
        self._sink = sink
        self._records = LogRecords(key=key, kinds=kinds, unsigned_sources=unsigned_sources)
        self._kinds = kinds
        self._broker = broker
        self._begun: Mapping[Partition, LogRange] = {}
        self._meter = meter or Meter()
        self._decoder = ThreadPoolExecutor(1, "decode")
        self.stored: dict[Partition, int] = {}
        self.stored_at: datetime | None = None
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # One waits while one is written and one is decoded: the store pauses for its checkpoints.
        self._waiting: asyncio.Queue[tuple[Decoded, Callable[[], None]]] = asyncio.Queue(1)
        self._storing = asyncio.Lock()
        self._writing = asyncio.create_task(self._write_all())

    async def begin(self, assigned: Collection[Partition]) -> Mapping[Partition, int]:
        """Our offsets, after pinning partitions never read before.

        Raises:
            GapError: the broker no longer has what would be next. Nothing is stored after it, so
                that the offsets it names stay true.
            BrokerAwayError: it does not answer, or does not know a partition yet.
        """
        ranges = await self._broker.beginnings(assigned)
        await self.check(ranges, among=assigned)
        if unknown := sorted(set(assigned) - ranges.keys()):
            raise BrokerAwayError("kafka", f"it does not know {unknown}", "It is asked again")
        await self._sink.pin(KAFKA, ranges)
        stored = await self._sink.offsets(KAFKA)
        start = {partition: stored[partition].next_offset for partition in assigned}
        self.stored.update(start)
        self._begun = ranges
        return start

    async def is_sure(self) -> bool:
        """Whether what was fetched by now is of the topics that were begun with; False: ask again.

        Raises:
            GapError: they are not the same any more; as in `begin`.
        """
        try:
            if self._is_same(await self._broker.describe()):
                return True
            ranges = await self._broker.beginnings(self._begun.keys())
        except BrokerAwayError:
            return False
        await self.check(ranges, among=self._begun, kinds=OF_IDENTITY)
        return False

    def _is_same(self, cluster: Cluster) -> bool:
        """Also with more partitions than there were."""
        return all(
            at.topic in cluster.topics
            and (cluster.cluster_id, cluster.topics[at.topic][0]) == (log.cluster_id, log.topic_id)
            for at, log in self._begun.items()
        )

    async def check(
        self,
        ranges: Mapping[Partition, LogRange],
        *,
        among: Collection[Partition] | None = None,
        kinds: Collection[str] = ANY,
    ) -> None:
        """Fail on gaps among some partitions, or all of ours.

        Raises:
            GapError: nothing is stored after it, so that the offsets it names stay true.
        """
        async with self._storing:
            stored = await self._sink.offsets(KAFKA)
            mine = {
                at: offset
                for at, offset in stored.items()
                if (at.topic in self._kinds if among is None else at in among)
            }
            if gaps := [gap for gap in find_gaps(mine, ranges) if gap.kind in kinds]:
                self.failed(GapError(gaps))
                await self.failure

    async def accept(self, chunks: Sequence[Chunk], stored: Callable[[], None]) -> None:
        """Decode off the event loop; rows and offsets will be stored in one transaction.

        Returns before that, so that the next chunks are decoded meanwhile. `stored` is called after
        the commit. Transactions stay in order, and after one that failed there is none: it raises
        that failure.
        """
        await self._waiting.put((await self._decoded(chunks), stored))
        if self.failure.done():
            await self.failure

    def failed(self, error: BaseException) -> None:
        """The first failure counts; what follows from it does not."""
        if not self.failure.done():
            self.failure.set_exception(error)
            self.failure.exception()  # seen: whoever waits for it gets it all the same

    async def close(self) -> None:
        """Store nothing more: only a transaction that hangs is not waited for. Safe to repeat."""
        self._decoder.shutdown(wait=False, cancel_futures=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S), self._storing:
                self._writing.cancel()  # between two transactions
        self._writing.cancel()

    async def _decoded(self, chunks: Sequence[Chunk]) -> Decoded:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._decoder, self._decode, chunks)

    async def _write_all(self) -> None:
        """After a failure what still comes is taken and dropped, so that nobody waits for ever."""
        while True:
            decoded, stored = await self._waiting.get()
            async with self._storing:
                if not self.failure.done():
                    await self._try_write(decoded, stored)

    async def _try_write(self, decoded: Decoded, stored: Callable[[], None]) -> None:
        try:
            await self._write(decoded)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing more is stored
            self.failed(error)
        else:
            stored()

    async def _write(self, decoded: Decoded) -> None:
        began_s = time.perf_counter()
        written = await self._sink.write(decoded)
        self._meter.note(decoded, time.perf_counter() - began_s)
        self.stored.update(written.next_offsets)
        self.stored_at = datetime.now(UTC)

    def _decode(self, chunks: Sequence[Chunk]) -> Decoded:
        records = [self._records.read(record) for chunk in chunks for record in chunk.records]
        spans = [
            Span(chunk.partition, chunk.start, chunk.end, record_time(chunk.records[-1]))
            for chunk in chunks
        ]
        return decode(records, source=KAFKA, spans=spans)
