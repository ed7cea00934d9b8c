"""A reader for a part of the log, with kafka-python: no group, no commits, committed records."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Self, TypeVar

from kafka import KafkaConsumer
from kafka.errors import KafkaError, OffsetOutOfRangeError
from kafka.structs import TopicPartition

from adaptd.consumers.kafka.batch_bounds import bound_batches
from adaptd.consumers.kafka.topic_admin import BrokerAwayError
from adaptd.daemon.domain.ingest import Partition
from adaptd.daemon.wire.errors import AdaptdError
from adaptd.daemon.wire.kafka import KafkaSecurity
from adaptd.daemon.wire.kafka_clients import connect

T = TypeVar("T")
_CHUNK_RECORDS = 5_000
_CHUNK_BYTES = 8 << 20  # about so much at once; one record may have 5 MB, another 100 bytes
_POLL_MS = 500
_ANSWER_MS = 10_000
_PARTITION_BYTES = 2 << 20
_FETCH_BYTES = 16 << 20
_AWAY = (KafkaError, OSError, ValueError, TimeoutError)


class LogGoneError(AdaptdError):
    """The offset to read next is gone: by retention, by deletion, or the topic was recreated."""


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Records of one partition. `start` to `end` (excluded) also covers markers and gaps."""

    partition: Partition
    start: int
    end: int
    records: Sequence[Any]  # kafka-python ConsumerRecord


class LogReader:
    """One client on a thread of its own. Every method raises BrokerAwayError where it fails."""

    def __init__(self, bootstrap: str, *, security: KafkaSecurity) -> None:
        self._bootstrap = bootstrap
        self._security = security
        self._thread = ThreadPoolExecutor(1, "log-reader")
        self._consumer: Any = None
        self._next: dict[Partition, int] = {}
        self._ends: dict[Partition, int] = {}
        self._limit = _CHUNK_RECORDS

    async def __aenter__(self) -> Self:
        try:
            self._consumer = await self._run_in_thread(self._connect_consumer)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        # Not waited for: while the broker is away, closing takes long.
        self._thread.submit(self._consumer.close, autocommit=False, timeout_ms=1_000)
        self._thread.shutdown(wait=False)

    async def bounds(self, places: Sequence[Partition]) -> dict[Partition, tuple[int, int]]:
        """Read the first offset and the end of what is committed, by partition."""

        def ask() -> dict[Partition, tuple[int, int]]:
            asked = [TopicPartition(*place) for place in places]
            first = self._consumer.beginning_offsets(asked, timeout_ms=_ANSWER_MS)
            end = self._consumer.end_offsets(asked, timeout_ms=_ANSWER_MS)
            return {Partition(*at): (first[at], end[at]) for at in asked}

        return await self._run_in_thread(ask)

    async def offsets_since(
        self, places: Sequence[Partition], moment: datetime
    ) -> dict[Partition, int | None]:
        """Read the first offset of a record at or after a time; None where there is none."""

        def ask() -> dict[Partition, int | None]:
            millis = int(moment.timestamp() * 1000)
            asked = {TopicPartition(*place): millis for place in places}
            found = self._consumer.offsets_for_times(asked, timeout_ms=_ANSWER_MS)
            return {
                Partition(*at): None if hit is None else hit.offset for at, hit in found.items()
            }

        return await self._run_in_thread(ask)

    async def assign(self, parts: Mapping[Partition, tuple[int, int]]) -> None:
        """Read these partitions next, each from an offset up to another (excluded)."""

        def assign_and_seek() -> None:
            self._consumer.assign([TopicPartition(*place) for place in parts])
            for place, (start, _) in parts.items():
                self._consumer.seek(TopicPartition(*place), start)

        self._next = {place: start for place, (start, _) in parts.items()}
        self._ends = {place: end for place, (_, end) in parts.items()}
        await self._run_in_thread(assign_and_seek)

    async def read(self) -> list[LogChunk]:
        """Read the next chunks, in order. Empty where the broker sent nothing for 0.5 s.

        Raises:
            LogGoneError: the broker no longer has the next offset.
        """
        return await self._run_in_thread(self._poll_chunks)

    @property
    def finished(self) -> bool:
        return all(self._next[place] >= end for place, end in self._ends.items())

    def _poll_chunks(self) -> list[LogChunk]:
        try:
            found = self._consumer.poll(timeout_ms=_POLL_MS, max_records=self._limit)
        except OffsetOutOfRangeError as error:
            raise LogGoneError(
                "kafka",
                f"the broker no longer has what would be read next ({error})",
                "Begin another replay with what is left",
            ) from error
        self._limit = _next_limit(found)
        chunks = [self._take_chunk(place, found) for place in self._unread_partitions()]
        return [chunk for chunk in chunks if chunk is not None]

    def _unread_partitions(self) -> list[Partition]:
        return [place for place, end in self._ends.items() if self._next[place] < end]

    def _take_chunk(self, place: Partition, found: Mapping[Any, Sequence[Any]]) -> LogChunk | None:
        # The client's position moves past markers and aborted records, which it does not return.
        at, end = TopicPartition(*place), self._ends[place]
        start, position = self._next[place], min(self._consumer.position(at), end)
        if position >= end:
            self._consumer.pause(at)
        if position <= start:
            return None
        self._next[place] = position
        records = [record for record in found.get(at, ()) if start <= record.offset < end]
        return LogChunk(place, start, position, records)

    def _connect_consumer(self) -> Any:
        consumer: Any = connect(
            KafkaConsumer,
            bootstrap_servers=self._bootstrap.split(","),
            client_id="adaptd-replay",
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="none",
            max_partition_fetch_bytes=_PARTITION_BYTES,
            fetch_max_bytes=_FETCH_BYTES,
            bootstrap_timeout_ms=_ANSWER_MS,
            **self._security.client_options(),
        )
        fetcher = consumer._fetcher  # noqa: SLF001 - the only place before batches are unpacked
        fetcher._parse_fetched_data = partial(_parse_bounded, fetcher._parse_fetched_data)  # noqa: SLF001 - as above
        return consumer

    async def _run_in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except _AWAY as error:
            raise BrokerAwayError(
                self._bootstrap,
                f"the broker does not answer ({type(error).__name__}: {error})",
                "Check ADAPTD_KAFKA_BOOTSTRAP and that the broker runs",
            ) from error


def _parse_bounded(parse: Callable[[Any], Any], fetched: Any) -> Any:
    """Parse only the batches that may be unpacked. A contract test pins the client's method."""
    answer = fetched.partition_data
    if answer.records:
        answer.records = bound_batches(bytes(answer.records))
    return parse(fetched)


def _next_limit(found: Mapping[Any, Sequence[Any]]) -> int:
    """Choose the number of records to take next from the sizes of the last ones."""
    sizes = [len(record.value or b"") + 100 for records in found.values() for record in records]
    if not sizes:
        return _CHUNK_RECORDS
    return min(_CHUNK_RECORDS, max(1, _CHUNK_BYTES * len(sizes) // sum(sizes)))
