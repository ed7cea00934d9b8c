"""The chunk reader: decodes fetched chunks, stores them in order, and stops at gaps."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

from adaptd.consumers.decoding.decode import decode
from adaptd.consumers.decoding.json_events import Kind
from adaptd.consumers.decoding.records import LogRecords, record_time
from adaptd.consumers.kafka.faust_app import Chunk
from adaptd.consumers.kafka.topic_admin import BrokerAwayError, Cluster
from adaptd.consumers.kafka.topic_identity import ALL_KINDS, IDENTITY_KINDS, GapError, find_gaps
from adaptd.daemon.domain.ingest import KAFKA, Decoded, LogRange, Partition, Span
from adaptd.daemon.domain.meters import Meter
from adaptd.daemon.domain.ports import EventSink

_CLOSE_S = 10.0


class Broker(Protocol):
    """Questions to the broker. Both raise BrokerAwayError where it does not answer."""

    async def describe(self) -> Cluster: ...

    async def read_ranges(self, wanted: Collection[Partition]) -> dict[Partition, LogRange]:
        """Read what the broker has of these partitions. Those that are gone are left out."""
        ...


class ChunkReader:
    """One run of the consumer. The future `failure` is done where it cannot go on."""

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
        """Return the stored offsets, after pinning partitions never read before.

        Raises:
            GapError: the broker no longer has what is next. Nothing is stored after it, so the
                offsets in the error stay true.
            BrokerAwayError: the broker does not answer, or does not know a partition yet.
        """
        ranges = await self._broker.read_ranges(assigned)
        await self.check_gaps(ranges, among=assigned)
        if unknown := sorted(set(assigned) - ranges.keys()):
            raise BrokerAwayError("kafka", f"it does not know {unknown}", "It is asked again")
        await self._sink.pin(KAFKA, ranges)
        stored = await self._sink.offsets(KAFKA)
        start = {partition: stored[partition].next_offset for partition in assigned}
        self.stored.update(start)
        self._begun = ranges
        return start

    async def verify_topics(self) -> bool:
        """Return True where everything fetched so far is of the topics that `begin` saw.

        False: the broker cannot say yet, so ask again.

        Raises:
            GapError: a topic is another one; as in `begin`.
        """
        try:
            if self._is_same_log(await self._broker.describe()):
                return True
            ranges = await self._broker.read_ranges(self._begun.keys())
        except BrokerAwayError:
            return False
        await self.check_gaps(ranges, among=self._begun, kinds=IDENTITY_KINDS)
        return False

    def _is_same_log(self, cluster: Cluster) -> bool:
        # Ids only, not the number of partitions: partitions may be added at any time.
        return all(
            at.topic in cluster.topics
            and (cluster.cluster_id, cluster.topics[at.topic][0]) == (log.cluster_id, log.topic_id)
            for at, log in self._begun.items()
        )

    async def check_gaps(
        self,
        ranges: Mapping[Partition, LogRange],
        *,
        among: Collection[Partition] | None = None,
        kinds: Collection[str] = ALL_KINDS,
    ) -> None:
        """Fail on gaps among the given partitions, or among all partitions that are read.

        Raises:
            GapError: nothing is stored after it, so the offsets in the error stay true.
        """
        async with self._storing:
            stored = await self._sink.offsets(KAFKA)
            mine = {
                at: offset
                for at, offset in stored.items()
                if (at.topic in self._kinds if among is None else at in among)
            }
            if gaps := [gap for gap in find_gaps(mine, ranges) if gap.kind in kinds]:
                self.fail(GapError(gaps))
                await self.failure

    async def accept(self, chunks: Sequence[Chunk], on_stored: Callable[[], None]) -> None:
        """Decode off the event loop and queue one transaction of rows and offsets.

        Returns before the transaction, so the next chunks are decoded meanwhile. `on_stored` is
        called after the commit. Transactions stay in order. Once one has failed, no other is
        written and `accept` raises that failure.
        """
        await self._waiting.put((await self._decode_in_thread(chunks), on_stored))
        if self.failure.done():
            await self.failure

    def fail(self, error: BaseException) -> None:
        """End the run with the first failure. Later ones follow from it and are dropped."""
        if not self.failure.done():
            self.failure.set_exception(error)
            self.failure.exception()  # mark it as retrieved; a later await still raises it

    async def close(self) -> None:
        """Store nothing more. Waits at most 10 s for the current transaction. Safe to repeat."""
        self._decoder.shutdown(wait=False, cancel_futures=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S), self._storing:
                self._writing.cancel()  # between two transactions
        self._writing.cancel()

    async def _decode_in_thread(self, chunks: Sequence[Chunk]) -> Decoded:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._decoder, self._decode_chunks, chunks)

    async def _write_all(self) -> None:
        while True:
            decoded, on_stored = await self._waiting.get()
            async with self._storing:
                # After a failure the queue is still emptied, so that no caller waits for ever.
                if not self.failure.done():
                    await self._try_write(decoded, on_stored)

    async def _try_write(self, decoded: Decoded, on_stored: Callable[[], None]) -> None:
        try:
            began_s = time.perf_counter()
            written = await self._sink.write(decoded)
            self._meter.note(decoded, time.perf_counter() - began_s)
            self.stored.update(written.next_offsets)
            self.stored_at = datetime.now(UTC)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing more is stored
            self.fail(error)
        else:
            on_stored()

    def _decode_chunks(self, chunks: Sequence[Chunk]) -> Decoded:
        records = [self._records.read(record) for chunk in chunks for record in chunk.records]
        spans = [
            Span(chunk.partition, chunk.start, chunk.end, record_time(chunk.records[-1]))
            for chunk in chunks
        ]
        return decode(records, source=KAFKA, spans=spans)
