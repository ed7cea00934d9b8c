"""Between Faust and the store: where to begin, chunks into rows, and whether it all still moves."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from consumers.app import Chunk
from consumers.decode import decode
from consumers.gaps import GapError, find_gaps
from consumers.log_records import LogRecords, record_time
from consumers.parse import Kind
from consumers.topics import BrokerAwayError
from daemon.domain.ingest import KAFKA, Decoded, LogRange, Partition, Span
from daemon.domain.meters import Meter
from daemon.domain.ports import EventSink


class ChunkReader:
    """One run of the consumer. `failure` is done where it cannot go on.

    `found` asks the broker what it has of partitions, whose topic and cluster that is with it.
    """

    def __init__(
        self,
        sink: EventSink,
        *,
        key: bytes,
        kinds: Mapping[str, Kind],
        unsigned_sources: frozenset[str],
        found: Callable[[Collection[Partition]], Awaitable[Mapping[Partition, LogRange]]],
        meter: Meter | None = None,
    ) -> None:
        self._sink = sink
        self._records = LogRecords(key=key, kinds=kinds, unsigned_sources=unsigned_sources)
        self._found = found
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
        ranges = await self._found(assigned)
        async with self._storing:
            stored = await self._sink.offsets(KAFKA)
            known = {partition: stored[partition] for partition in assigned if partition in stored}
            if gaps := find_gaps(known, ranges):
                self.failed(GapError(gaps))
                await self.failure
        if unknown := sorted(set(assigned) - ranges.keys()):
            raise BrokerAwayError("kafka", f"it does not know {unknown}", "It is asked again")
        await self._sink.pin(KAFKA, ranges)
        stored = await self._sink.offsets(KAFKA)
        start = {partition: stored[partition].next_offset for partition in assigned}
        self.stored.update(start)
        return start

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

    def close(self) -> None:
        """Let go of the thread. Work under way ends by itself."""
        self._decoder.shutdown(wait=False, cancel_futures=True)
        self._writing.cancel()  # nobody waits any more; the store ends its transaction

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
