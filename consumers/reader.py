"""Between Faust and the store: where to begin, chunks into rows, and whether it all still moves."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from consumers.app import Chunk
from consumers.decode import decode
from consumers.gaps import GapError, find_gaps
from consumers.log_records import LogRecords, record_time
from consumers.parse import Kind
from daemon.domain.ingest import KAFKA, Decoded, LogRange, Partition, Span
from daemon.domain.ports import EventSink


class ChunkReader:
    """One run of the consumer. `failure` is done where it cannot go on."""

    def __init__(
        self,
        sink: EventSink,
        *,
        key: bytes,
        kinds: Mapping[str, Kind],
        unsigned_sources: frozenset[str],
        cluster_id: str | None,
        topic_ids: Mapping[str, str | None],
    ) -> None:
        self._sink = sink
        self._records = LogRecords(key=key, kinds=kinds, unsigned_sources=unsigned_sources)
        self._cluster_id = cluster_id
        self._topic_ids = topic_ids
        self._decoder = ThreadPoolExecutor(1, "decode")
        self.stored: dict[Partition, int] = {}
        self.stored_at: datetime | None = None
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def begin(self, found: Mapping[Partition, tuple[int, int]]) -> Mapping[Partition, int]:
        """Our offsets, after pinning partitions never read before.

        Raises:
            GapError: the broker no longer has what would be next.
        """
        ranges = {
            partition: LogRange(self._topic_ids.get(partition.topic), first, end)
            for partition, (first, end) in found.items()
        }
        await self._sink.pin(KAFKA, ranges, cluster_id=self._cluster_id)
        stored = await self._sink.offsets(KAFKA)
        if gaps := find_gaps({partition: stored[partition] for partition in ranges}, ranges):
            raise GapError(gaps)
        start = {partition: stored[partition].next_offset for partition in ranges}
        self.stored.update(start)
        return start

    async def store(self, chunks: Sequence[Chunk]) -> None:
        """Decode off the event loop, then rows and offsets in one transaction."""
        loop = asyncio.get_running_loop()
        decoded = await loop.run_in_executor(self._decoder, self._decode, chunks)
        written = await self._sink.write(decoded)
        self.stored.update(written.next_offsets)
        self.stored_at = datetime.now(UTC)

    def failed(self, error: BaseException) -> None:
        """The first failure counts; what follows from it does not."""
        if not self.failure.done():
            self.failure.set_exception(error)
            self.failure.exception()  # seen: whoever waits for it gets it all the same

    def close(self) -> None:
        """Let go of the thread. Work under way ends by itself."""
        self._decoder.shutdown(wait=False, cancel_futures=True)

    def _decode(self, chunks: Sequence[Chunk]) -> Decoded:
        records = [self._records.read(record) for chunk in chunks for record in chunk.records]
        spans = [
            Span(chunk.partition, chunk.start, chunk.end, record_time(chunk.records[-1]))
            for chunk in chunks
        ]
        return decode(records, source=KAFKA, spans=spans)
