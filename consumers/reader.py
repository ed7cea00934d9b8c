"""Between Faust and the store: where to begin, chunks into rows, and whether it all still moves."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from consumers.app import Chunk
from consumers.decode import SIGNED, Record, Sender, decode
from consumers.gaps import GapError, find_gaps
from consumers.parse import Kind, UnreadableError
from daemon.domain.events import SIGNATURE_HEADER
from daemon.domain.ingest import KAFKA, Decoded, LogRange, Partition, Span
from daemon.domain.ports import EventSink
from daemon.domain.signing import is_signed


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
        self._key = key
        self._kinds = kinds
        self._unsigned = Sender(trusted=False, principal=None, sources=unsigned_sources)
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
        records = [self._record(record) for chunk in chunks for record in chunk.records]
        spans = [
            Span(chunk.partition, chunk.start, chunk.end, _record_time(chunk.records[-1]))
            for chunk in chunks
        ]
        return decode(records, source=KAFKA, spans=spans)

    def _record(self, record: Any) -> Record:
        return Record(
            record.value,
            record.topic,
            record.partition,
            record.offset,
            self._sender(record),
            self._kinds.get(record.topic),
        )

    def _sender(self, record: Any) -> Sender | UnreadableError:
        """Signed by a gateway, unsigned, or signed wrongly, which nobody honest does."""
        signature = next(
            (value for name, value in record.headers if name == SIGNATURE_HEADER), None
        )
        if signature is None:
            return self._unsigned
        if record.value is not None and is_signed(self._key, record.value, signature):
            return SIGNED
        return UnreadableError("bad_signature", "it is not signed with this installation's secret")


def _record_time(record: Any) -> datetime | None:
    if record.timestamp is None or record.timestamp < 0:
        return None
    try:
        return datetime.fromtimestamp(record.timestamp / 1000, UTC)
    except (OverflowError, ValueError, OSError):  # producers may claim any time
        return None
