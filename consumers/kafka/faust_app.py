"""The Faust app: hands whole fetched chunks to one agent, from the store's offsets (D7).

Stock Faust delivers 4-8 k messages/s, whole chunks 64-77 k. Offsets come from the store after every
(re)assignment; Kafka's own are advisory and never read. Used of Faust's internals, and pinned by
tests/unit/consumers/test_faust_contract.py: `_new_transport`, `_thread`, `_new_consumer_thread`,
`_wait_next_records`, `_buffered_partitions`, `_to_message`, the table manager's `on_start`,
`_update_channels` and `recovery`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import faust
import msgspec
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from faust.auth import Credentials, SASLCredentials, SSLCredentials
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver

from adaptd.consumers.kafka.failures import ClientCrashedError, as_client_error
from adaptd.consumers.kafka.fetch_thread import FetchThread
from adaptd.consumers.kafka.memory_budget import (
    EMPTY_CHUNK_BYTES,
    MemoryBudget,
    group_by_bytes,
    split_by_bytes,
)
from adaptd.daemon.domain.ingest import Partition
from adaptd.daemon.wire.kafka import KafkaSecurity

_CHUNK_RECORDS = 5_000  # memory_budget bounds the bytes too
_FETCH_BYTES = 2 << 20  # per partition and fetch
# At most for one transaction. Where few events arrive, fetches are small and many share one.
_CHUNKS_TAKEN = 1_000
# Too many to be reached: Faust sleeps a second where its buffer is full. The memory budget bounds.
_BUFFERED_CHUNKS = 1_000_000
_AFTER_FAILURE_S = 1  # the app is being stopped; do not spin meanwhile
_BEGIN_S = 20.0  # less than Faust's request timeout (30 s), after which Faust does nothing more
_ROOM_S = 0.1  # how often a wait looks whether the flow was stopped meanwhile
_GATHER_S = 0.01  # how long small chunks wait for others in one transaction


class ConsumerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one run of the app.

    `instance` makes membership static: a killed process is back in 2 s, not after the timeout.
    `directory` must exist for Faust, which stores nothing in it.
    """

    bootstrap: str
    group: str
    instance: str
    topics: tuple[str, ...]
    session_timeout_s: float
    security: KafkaSecurity
    directory: Path


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records of one partition as fetched. `start` is where the chunk before it ended."""

    partition: Partition
    start: int
    records: Sequence[Any]  # aiokafka ConsumerRecord
    size_bytes: int = 0
    epoch: int = 0  # of the memory budget that the bytes were taken from

    @property
    def end(self) -> int:
        return self.records[-1].offset + 1


class Reader(Protocol):
    """The receiver of what the app fetches: `chunk_reader.ChunkReader`."""

    async def begin(self, assigned: Collection[Partition]) -> Mapping[Partition, int]:
        """Return the offset to read each assigned partition from.

        Raises where a partition cannot be read on; nothing is read then.
        """
        ...

    async def verify_topics(self) -> bool:
        """Return True where everything fetched so far is of the topics that `begin` saw.

        False: ask again. Raises where a topic is another one.
        """
        ...

    async def accept(self, chunks: Sequence[Chunk], on_stored: Callable[[], None]) -> None:
        """Decode, and store after all earlier chunks; `on_stored` is called after the commit."""
        ...

    def fail(self, error: BaseException) -> None:
        """Read nothing more: the app is stopped."""
        ...


class ChunkConsumer(driver.Consumer):
    """Reads chunk by chunk from the store's offsets. Each chunk starts where the last one ended."""

    app: "IngestApp"  # pyright: ignore[reportIncompatibleVariableOverride] - no other app
    _thread: FetchThread  # pyright: ignore[reportIncompatibleVariableOverride] - see _new_consumer_thread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._chain: dict[Any, int] = {}  # by partition: the end of the last chunk handed over
        self._verifying: asyncio.Future[bool] | None = None  # outlives a rebalance
        self._must_seek = False  # records were dropped unread
        self.budget = MemoryBudget()

    @property
    def thread(self) -> FetchThread:
        return self._thread

    @property
    def handed(self) -> dict[Partition, int]:
        """The end of the last chunk of each partition that was handed over to the agent."""
        return {Partition(tp.topic, tp.partition): end for tp, end in self._chain.items()}

    def _new_consumer_thread(self) -> FetchThread:
        return FetchThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[Any, int]:
        """Seek to the stored offsets. Faust calls this after every (re)assignment."""
        try:
            assigned = list(self.assignment())
            self._chain = {}  # nothing is handed over until the seek is done
            self._thread.is_in_doubt = False
            async with asyncio.timeout(_BEGIN_S):
                start = await self.app.reader.begin([Partition(*tp) for tp in assigned])
            mine = self.assignment()  # a partition may have been revoked meanwhile
            begin = {tp: start[Partition(*tp)] for tp in assigned if tp in mine}
            with as_client_error():
                await self._thread.seek_wait(begin)
        except Exception as error:
            self.app.reader.fail(error)
            raise
        self._chain = dict(begin)
        self._must_seek = False
        self.budget.begin()
        return begin

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[Any, Any]]:  # noqa: ASYNC109 - Faust's signature
        """One message per fetched chunk."""
        if self._must_seek and self.flow_active:
            await self.perform_seek()
        records, active = await self._fetch_records(timeout)
        generation = self.app.consumer_generation_id
        if not await self._verify_topics(generation):
            self._must_seek = True
            return
        if not records or self.should_stop:
            return
        if not self.flow_active:
            await self.perform_seek()
            return
        for tp, found in records.items():
            wanted = active is None or tp in active or tp in self._buffered_partitions
            for part, part_bytes in split_by_bytes(found):
                size_bytes = part_bytes + EMPTY_CHUNK_BYTES
                room = wanted and await self._wait_for_room(size_bytes, generation)
                if not (room and tp in self._chain and self._is_current(generation)):
                    # Dropping records without a new seek would lose them silently.
                    self._must_seek = True
                    break
                yield tp, self._make_message(tp, part, size_bytes)

    async def _verify_topics(self, generation: int) -> bool:
        """Ask until the broker confirms that fetched records are of the topics begun with.

        False: the flow was stopped meanwhile. A partition without a leader, or with a new one, does
        not keep the others waiting.
        """
        while self._thread.is_in_doubt or self._verifying is not None:
            if self.should_stop or not self._is_current(generation):
                return False
            if self._verifying is None:
                self._thread.is_in_doubt = False
                self._verifying = asyncio.ensure_future(self.app.reader.verify_topics())
            if (await asyncio.wait([self._verifying], timeout=_ROOM_S))[0]:
                verified, self._verifying = self._verifying, None
                if not verified.result():
                    self._thread.is_in_doubt = True
                    await asyncio.sleep(_ROOM_S)
        return True

    def _is_current(self, generation: int) -> bool:
        return self.flow_active and generation == self.app.consumer_generation_id

    async def _wait_for_room(self, size_bytes: int, generation: int) -> bool:
        """Wait until so many bytes may be handed over. False: the flow was stopped meanwhile."""
        while not self.budget.has_room(size_bytes):
            if self.should_stop or not self._is_current(generation):
                return False
            await self.budget.wait(_ROOM_S)
        return True

    def _make_message(self, tp: Any, records: Sequence[Any], size_bytes: int) -> Any:
        self.budget.take(size_bytes)
        message = self._to_message(tp, records[-1])
        chunk = Chunk(
            Partition(tp.topic, tp.partition),
            self._chain[tp],
            records,
            size_bytes,
            self.budget.epoch,
        )
        message.value = chunk  # pyright: ignore[reportAttributeAccessIssue] - passed on as it is
        self._chain[tp] = chunk.end
        return message

    async def _fetch_records(self, timeout: float) -> tuple[Any, Any]:  # noqa: ASYNC109 - passed on to Faust
        try:
            return await self._wait_next_records(timeout)
        except NoOffsetForPartitionError:
            return None, None  # fetched before the seek, which follows
        except OffsetOutOfRangeError:
            await self.perform_seek()  # `begin` finds the gap and raises it
            return None, None
        except KafkaError as error:
            bare = type(error) is KafkaError
            crash = ClientCrashedError("consumer", f"{error}", "It is started again by itself")
            self.app.reader.fail(crash if bare else error)
            await asyncio.sleep(_AFTER_FAILURE_S)
            return None, None


class ChunkTransport(driver.Transport):
    Consumer = ChunkConsumer


class NoTables(TableManager):
    """A table manager without tables: Faust's own waits a second for their declaration."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class IngestApp(faust.App):
    """A Faust app whose consumer begins at the offsets that `reader` returns."""

    reader: Reader

    def _new_transport(self) -> ChunkTransport:
        return ChunkTransport(self.conf.broker_consumer, self)


def build_app(settings: ConsumerSettings, reader: Reader) -> IngestApp:
    """Build an app for the running event loop. Build a new one for every start."""
    # No table, changelog, leader topic, web server or exactly-once mode: none is needed, and the
    # last is known to lose and repeat events.
    app = IngestApp(
        settings.group,
        broker=[f"kafka://{server.strip()}" for server in settings.bootstrap.split(",")],
        broker_credentials=_faust_credentials(settings.security),
        datadir=settings.directory,
        autodiscover=False,
        web_enabled=False,
        TableManager=NoTables,
        topic_disable_leader=True,
        table_standby_replicas=0,
        stream_wait_empty=False,
        stream_buffer_maxsize=_BUFFERED_CHUNKS,
        broker_max_poll_records=_CHUNK_RECORDS,
        consumer_max_fetch_size=_FETCH_BYTES,
        consumer_auto_offset_reset="none",
        consumer_group_instance_id=settings.instance,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 5,
        broker_request_timeout=max(30.0, settings.session_timeout_s),
    )
    app.reader = reader
    topic = app.topic(*settings.topics, key_serializer="raw", value_serializer="raw", acks=False)

    @app.agent(topic, name="ingest")
    async def ingest(stream: Any) -> None:
        consumer: ChunkConsumer = app.consumer  # pyright: ignore[reportAssignmentType] - no other
        async for events in stream.take_events(_CHUNKS_TAKEN, within=_GATHER_S):
            for chunks in group_by_bytes([event.value for event in events]):
                try:
                    await reader.accept(chunks, partial(_give_back, consumer.budget, chunks))
                except Exception as error:  # noqa: BLE001 - Faust would log it and go on with the next chunk
                    reader.fail(error)
                    await asyncio.Event().wait()  # until the app is stopped

    return app


def _give_back(budget: MemoryBudget, chunks: Sequence[Chunk]) -> None:
    for chunk in chunks:
        budget.give(chunk.size_bytes, epoch=chunk.epoch)


def _faust_credentials(security: KafkaSecurity) -> Credentials | None:
    """Translate the client options to Faust's types."""
    options = security.client_options()
    if "sasl_mechanism" in options:
        return SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            mechanism=options["sasl_mechanism"],
            ssl_context=options.get("ssl_context"),
        )
    return SSLCredentials(options["ssl_context"]) if options else None
