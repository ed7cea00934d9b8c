"""A part of the log, read once by kafka-python: no group, no commits, committed records only."""

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

from adaptd.consumers.kafka.batch_bounds import bounded
from adaptd.consumers.kafka.topic_admin import BrokerAwayError
from adaptd.daemon.domain.ingest import Partition
from adaptd.daemon.wire.errors import AdaptdError
from adaptd.daemon.wire.kafka import KafkaSecurity
from adaptd.daemon.wire.kafka_clients import connect

T = TypeVar("T")
_CHUNK_RECORDS = 5_000
_CHUNK_BYTES = 8 << 20  # about so much at once: a record may have 5 MB, or 100 bytes
_POLL_MS = 500
_ANSWER_MS = 10_000
_PARTITION_BYTES = 2 << 20
_FETCH_BYTES = 16 << 20
_AWAY = (KafkaError, OSError, ValueError, TimeoutError)


class LogGoneError(AdaptdError):
    """Retention or a deletion passed what was to be read next."""


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Records of one partition; `start` and `end` also cover what is not there: markers, gaps."""

    partition: Partition
    start: int
    end: int
    records: Sequence[Any]  # kafka-python ConsumerRecord


class LogReader:
    """One client on a thread of its own. Every method raises BrokerAwayError."""

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
            self._consumer = await self._run(self._connect)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Does not wait: a broker that is away would make it long."""
        self._thread.submit(self._consumer.close, autocommit=False, timeout_ms=1_000)
        self._thread.shutdown(wait=False)

    async def bounds(self, places: Sequence[Partition]) -> dict[Partition, tuple[int, int]]:
        """The first offset there is and the end of what is committed, by partition."""

        def ask() -> dict[Partition, tuple[int, int]]:
            asked = [TopicPartition(*place) for place in places]
            first = self._consumer.beginning_offsets(asked, timeout_ms=_ANSWER_MS)
            end = self._consumer.end_offsets(asked, timeout_ms=_ANSWER_MS)
            return {Partition(*at): (first[at], end[at]) for at in asked}

        return await self._run(ask)

    async def since(
        self, places: Sequence[Partition], moment: datetime
    ) -> dict[Partition, int | None]:
        """The first offset of a record at or after a time; None where there is none."""

        def ask() -> dict[Partition, int | None]:
            millis = int(moment.timestamp() * 1000)
            asked = {TopicPartition(*place): millis for place in places}
            found = self._consumer.offsets_for_times(asked, timeout_ms=_ANSWER_MS)
            return {
                Partition(*at): None if hit is None else hit.offset for at, hit in found.items()
            }

        return await self._run(ask)

    async def place(self, parts: Mapping[Partition, tuple[int, int]]) -> None:
        """Read these partitions next, each from an offset up to another (excluded)."""

        def assign() -> None:
            self._consumer.assign([TopicPartition(*place) for place in parts])
            for place, (start, _) in parts.items():
                self._consumer.seek(TopicPartition(*place), start)

        self._next = {place: start for place, (start, _) in parts.items()}
        self._ends = {place: end for place, (_, end) in parts.items()}
        await self._run(assign)

    async def read(self) -> list[LogChunk]:
        """What comes next, in order; nothing where the broker sent nothing for a moment.

        Raises:
            LogGoneError: it is no longer there.
        """
        return await self._run(self._poll)

    @property
    def finished(self) -> bool:
        return all(self._next[place] >= end for place, end in self._ends.items())

    def _poll(self) -> list[LogChunk]:
        try:
            found = self._consumer.poll(timeout_ms=_POLL_MS, max_records=self._limit)
        except OffsetOutOfRangeError as error:
            raise LogGoneError(
                "kafka",
                f"the broker no longer has what would be read next ({error})",
                "Begin another replay with what is left",
            ) from error
        self._limit = _next_limit(found)
        chunks = [self._chunk(place, found) for place in self._unread()]
        return [chunk for chunk in chunks if chunk is not None]

    def _unread(self) -> list[Partition]:
        return [place for place, end in self._ends.items() if self._next[place] < end]

    def _chunk(self, place: Partition, found: Mapping[Any, Sequence[Any]]) -> LogChunk | None:
        """The position moves past markers and aborted records too."""
        at, end = TopicPartition(*place), self._ends[place]
        start, position = self._next[place], min(self._consumer.position(at), end)
        if position >= end:
            self._consumer.pause(at)
        if position <= start:
            return None
        self._next[place] = position
        records = [record for record in found.get(at, ()) if start <= record.offset < end]
        return LogChunk(place, start, position, records)

    def _connect(self) -> Any:
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

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except _AWAY as error:
            raise BrokerAwayError(
                self._bootstrap,
                f"the broker does not answer ({type(error).__name__}: {error})",
                "Check ADAPTD_KAFKA_BOOTSTRAP and that the broker runs",
            ) from error


def _parse_bounded(parse: Callable[[Any], Any], fetched: Any) -> Any:
    """Of a partition's answer only what may be unpacked. Pinned by a contract test."""
    answer = fetched.partition_data
    if answer.records:
        answer.records = bounded(bytes(answer.records))
    return parse(fetched)


def _next_limit(found: Mapping[Any, Sequence[Any]]) -> int:
    """How many records to take next, from how large the last ones were."""
    sizes = [len(record.value or b"") + 100 for records in found.values() for record in records]
    if not sizes:
        return _CHUNK_RECORDS
    return min(_CHUNK_RECORDS, max(1, _CHUNK_BYTES * len(sizes) // sum(sizes)))
