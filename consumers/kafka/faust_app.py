"""The Faust app: hands whole fetched chunks to one agent, read from our own offsets (D7).

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

from adaptd.consumers.kafka.failures import ClientFellError, blaming_client
from adaptd.consumers.kafka.fetch_thread import ChunkThread
from adaptd.consumers.kafka.memory_budget import EMPTY_CHUNK_BYTES, Budget, parts, transactions
from adaptd.daemon.domain.ingest import Partition
from adaptd.daemon.wire.kafka import KafkaSecurity

_CHUNK_RECORDS = 5_000  # bytes are bounded too: see budget.py
_FETCH_BYTES = 2 << 20  # per partition and fetch
# At most at a time: where little comes, fetches are small, and a transaction is for many of them.
_CHUNKS_TAKEN = 1_000
# Faust sleeps a second where its buffer is full: ours is the budget's to bound, in bytes.
_BUFFERED_CHUNKS = 1_000_000
_AFTER_FAILURE_S = 1  # the app is being stopped: do not spin meanwhile
_BEGIN_S = 20.0  # Faust gives up after its request timeout, and then does nothing any more
_ROOM_S = 0.1  # how often a full budget looks whether the flow was stopped meanwhile
_GATHER_S = 0.01  # how long small chunks wait for company in one transaction


class ConsumerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`instance` makes membership static: a killed process is back in 2 s, not at the timeout."""

    bootstrap: str
    group: str
    instance: str
    topics: tuple[str, ...]
    session_timeout_s: float
    security: KafkaSecurity = KafkaSecurity()
    directory: Path  # Faust wants one, though it keeps nothing there


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records of one partition as fetched. `start` is where the chunk before it ended."""

    partition: Partition
    start: int
    records: Sequence[Any]  # aiokafka ConsumerRecord
    size_bytes: int = 0
    epoch: int = 0  # of the budget that the bytes were taken from

    @property
    def end(self) -> int:
        return self.records[-1].offset + 1


class Reader(Protocol):
    """What the app reads for."""

    async def begin(self, assigned: Collection[Partition]) -> Mapping[Partition, int]:
        """Where to read each assigned partition from.

        Raises where a partition cannot be read on; nothing is read then.
        """
        ...

    async def is_sure(self) -> bool:
        """Whether what was fetched by now is of the topics begun with; False: ask again.

        Raises where it is not.
        """
        ...

    async def accept(self, chunks: Sequence[Chunk], stored: Callable[[], None]) -> None:
        """Decode, and store once what came before is; `stored` is called after the commit."""
        ...

    def failed(self, error: BaseException) -> None:
        """Nothing more is read after this: stop the app."""
        ...


class ChunkConsumer(driver.Consumer):
    """Reads from the store's offsets, chunk by chunk; each knows where the one before it ended."""

    app: "IngestApp"  # pyright: ignore[reportIncompatibleVariableOverride] - only ever ours
    _thread: ChunkThread  # pyright: ignore[reportIncompatibleVariableOverride] - as made below

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._chain: dict[Any, int] = {}
        self._asking: asyncio.Future[bool] | None = None  # goes on while a rebalance does
        self._astray = False  # records were dropped unread: seek again
        self.budget = Budget()

    @property
    def thread(self) -> ChunkThread:
        return self._thread

    @property
    def handed(self) -> dict[Partition, int]:
        """Where the last chunk of each partition ended that the agent was or will be given."""
        return {Partition(tp.topic, tp.partition): end for tp, end in self._chain.items()}

    def _new_consumer_thread(self) -> ChunkThread:
        return ChunkThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[Any, int]:
        """Faust calls this after every (re)assignment."""
        try:
            assigned = list(self.assignment())
            self._chain = {}  # nothing is handed over until this is done
            self._thread.is_in_doubt = False
            async with asyncio.timeout(_BEGIN_S):
                start = await self.app.reader.begin([Partition(*tp) for tp in assigned])
            mine = self.assignment()  # a partition may have been taken from us meanwhile
            begin = {tp: start[Partition(*tp)] for tp in assigned if tp in mine}
            with blaming_client():
                await self._thread.seek_wait(begin)
        except Exception as error:
            self.app.reader.failed(error)
            raise
        self._chain = dict(begin)
        self._astray = False
        self.budget.begin()
        return begin

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[Any, Any]]:  # noqa: ASYNC109 - Faust's signature
        """One message per fetched chunk."""
        if self._astray and self.flow_active:
            await self.perform_seek()
        records, active = await self._fetch(timeout)
        generation = self.app.consumer_generation_id
        if not await self._is_sure(generation):
            self._astray = True
            return
        if not records or self.should_stop:
            return
        if not self.flow_active:
            await self.perform_seek()
            return
        for tp, found in records.items():
            wanted = active is None or tp in active or tp in self._buffered_partitions
            for part, part_bytes in parts(found):
                size_bytes = part_bytes + EMPTY_CHUNK_BYTES
                room = wanted and await self._room(size_bytes, generation)
                if not (room and tp in self._chain and self._is_same(generation)):
                    # Dropping records without a new seek would lose them silently.
                    self._astray = True
                    break
                yield tp, self._message(tp, part, size_bytes)

    async def _is_sure(self, generation: int) -> bool:
        """Whether what was fetched is of the topics begun with; asked until somebody can say.

        False where the flow was stopped meanwhile. Partitions that lead elsewhere now, or nowhere,
        do not keep the others waiting.
        """
        while self._thread.is_in_doubt or self._asking is not None:
            if self.should_stop or not self._is_same(generation):
                return False
            if self._asking is None:
                self._thread.is_in_doubt = False
                self._asking = asyncio.ensure_future(self.app.reader.is_sure())
            if (await asyncio.wait([self._asking], timeout=_ROOM_S))[0]:
                asked, self._asking = self._asking, None
                if not asked.result():
                    self._thread.is_in_doubt = True
                    await asyncio.sleep(_ROOM_S)
        return True

    def _is_same(self, generation: int) -> bool:
        return self.flow_active and generation == self.app.consumer_generation_id

    async def _room(self, size_bytes: int, generation: int) -> bool:
        """Wait until so much may be handed over; False where the flow was stopped meanwhile."""
        while not self.budget.has_room(size_bytes):
            if self.should_stop or not self._is_same(generation):
                return False
            await self.budget.wait(_ROOM_S)
        return True

    def _message(self, tp: Any, records: Sequence[Any], size_bytes: int) -> Any:
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

    async def _fetch(self, timeout: float) -> tuple[Any, Any]:  # noqa: ASYNC109 - passed on to Faust
        try:
            return await self._wait_next_records(timeout)
        except NoOffsetForPartitionError:
            return None, None  # asked before our seek; the seek follows
        except OffsetOutOfRangeError:
            await self.perform_seek()  # finds the gap and names it
            return None, None
        except KafkaError as error:
            bare = type(error) is KafkaError
            fell = ClientFellError("consumer", f"{error}", "It is started again by itself")
            self.app.reader.failed(fell if bare else error)
            await asyncio.sleep(_AFTER_FAILURE_S)
            return None, None


class ChunkTransport(driver.Transport):
    Consumer = ChunkConsumer


class NoTables(TableManager):
    """Faust waits a second for tables to be declared before it joins the group; there are none."""

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class IngestApp(faust.App):
    """A Faust app whose consumer asks `reader` where to begin."""

    reader: Reader

    def _new_transport(self) -> ChunkTransport:
        return ChunkTransport(self.conf.broker_consumer, self)


def build_app(settings: ConsumerSettings, reader: Reader) -> IngestApp:
    """An app for the running event loop. Build a new one for every start.

    No table, changelog, leader topic, web server or exactly-once mode: none is needed, and the
    last is known to lose and repeat events.
    """
    app = IngestApp(
        settings.group,
        broker=[f"kafka://{server.strip()}" for server in settings.bootstrap.split(",")],
        broker_credentials=_credentials(settings.security),
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
            for chunks in transactions([event.value for event in events]):
                try:
                    await reader.accept(chunks, partial(_give_back, consumer.budget, chunks))
                except Exception as error:  # noqa: BLE001 - Faust would log it and go on with the next chunk
                    reader.failed(error)
                    await asyncio.Event().wait()  # until the app is stopped

    return app


def _give_back(budget: Budget, chunks: Sequence[Chunk]) -> None:
    for chunk in chunks:
        budget.give(chunk.size_bytes, epoch=chunk.epoch)


def _credentials(security: KafkaSecurity) -> Credentials | None:
    """The same in Faust's words."""
    options = security.client_options()
    if "sasl_mechanism" in options:
        return SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            mechanism=options["sasl_mechanism"],
            ssl_context=options.get("ssl_context"),
        )
    return SSLCredentials(options["ssl_context"]) if options else None
