"""Runs the consumer inside the daemon, watches it, and halts on what only a person may decide."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import structlog
from faust.contrib.asgi import bind_to_running_loop

from adaptd.consumers.kafka.chunk_reader import ChunkReader
from adaptd.consumers.kafka.failures import (
    MENDABLE,
    blaming_client,
    is_transient,
    lasting,
    outlasted,
    told,
)
from adaptd.consumers.kafka.faust_app import ChunkConsumer, ConsumerSettings, IngestApp, build_app
from adaptd.consumers.kafka.gaps import OF_IDENTITY, GapError, find_gaps
from adaptd.consumers.kafka.log_throttle import few_client_logs
from adaptd.consumers.kafka.stall_detector import StuckError, Watchdog, lags
from adaptd.consumers.kafka.topic_admin import BrokerAwayError, Cluster, TopicAdmin, Topics
from adaptd.consumers.kafka.topic_advice import TopicFault, find_faults
from adaptd.consumers.kafka.topic_identity import Lookout
from adaptd.daemon.domain.ingest import KAFKA, Partition
from adaptd.daemon.domain.meters import Meter
from adaptd.daemon.domain.ports import EventSink, HaltBook
from adaptd.daemon.wire.errors import FreshStartError, HaltError, RefusedError
from adaptd.daemon.wire.kafka import KafkaSecurity

T = TypeVar("T")
State = Literal["starting", "waiting", "running", "halted"]
_log = structlog.get_logger(__name__)
_TICK_S = 1.0
_VERIFY_EVERY_S = 3.0
_RETRY_S = 1.0
_ANSWER_S = 10.0
_START_S = 60.0
_STOP_S = 30.0
_RECORD_S = 5.0  # the store may be what fails


class IngestSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`unsigned_sources`: what feedback without a gateway's signature may claim to be.

    `directory`: any folder that exists; Faust makes an empty one in it.
    """

    bootstrap: str
    directory: Path
    security: KafkaSecurity = KafkaSecurity()
    group: str = "adaptd"
    topics: Topics = Topics()
    create_topics: bool = False
    partitions: int = 3
    session_timeout_s: float = 10
    unsigned_sources: frozenset[str] = frozenset({"user"})
    stuck_s: float = 60
    dedupe_window_s: float = 24 * 3600  # the sink's: topics should keep events that long


class PartitionLag(msgspec.Struct, frozen=True, kw_only=True):
    """`lag` counts offsets not stored yet, transaction markers among them; None: not assigned."""

    topic: str
    partition: int
    next_offset: int
    lag: int | None = None
    record_at: datetime | None = None


class IngestStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`problem` says what is waited for, or why it halted."""

    state: State
    problem: str | None
    partitions: list[PartitionLag]
    last_stored_at: datetime | None
    topic_faults: list[TopicFault] = []


class IngestService:
    """The live consumer of one daemon."""

    def __init__(
        self, settings: IngestSettings, *, sink: EventSink, halts: HaltBook, key: bytes
    ) -> None:
        """`key` is derive(secret, "events"): what gateways sign with."""
        self._settings = settings
        self._sink = sink
        self._halts = halts
        self._key = key
        self._admin = TopicAdmin(settings.bootstrap, security=settings.security)
        self._lookout = Lookout(
            self._admin,
            sink,
            names=tuple(settings.topics.kinds),
            create_partitions=settings.partitions if settings.create_topics else None,
            waiting=lambda problem: self._become("waiting", problem),
        )
        self.meter = Meter()
        self._cleared = asyncio.Event()
        self._state: State = "starting"
        self._problem: str | None = None
        self._lags: dict[Partition, int] = {}
        self._stored_at: datetime | None = None
        self._topic_faults: list[TopicFault] = []

    async def run(self) -> None:
        """Consume until cancelled. A halt in force is waited out: see `resume` and `resync`.

        Raises:
            HaltError: it cannot go on. End the process with `os._exit(70)`: a stuck client thread
                would keep a normal exit waiting. The halt is stored, so that the next process
                waits for a person; after a FreshStartError it reads on.
        """
        try:
            with few_client_logs():
                await self._wait_while_halted()
                await self._consume()
        except HaltError as error:
            self._become("halted", str(error))
            await self._put_on_record(error)
            raise
        finally:
            await self._admin.close()

    async def status(self) -> IngestStatus:
        """What it is doing, and how far behind each partition is."""
        stored = await self._sink.offsets(KAFKA)
        partitions = [
            PartitionLag(
                topic=partition.topic,
                partition=partition.number,
                next_offset=offset.next_offset,
                lag=self._lags.get(partition),
                record_at=offset.record_at,
            )
            for partition, offset in sorted(stored.items())
        ]
        return IngestStatus(
            state=self._state,
            problem=self._problem,
            partitions=partitions,
            last_stored_at=self._stored_at,
            topic_faults=self._topic_faults,
        )

    async def resume(self, *, actor: str, reason: str) -> None:
        """Lift a halt and read on from the stored offsets.

        Raises:
            RefusedError: nothing is halted.
        """
        if not await self._halts.clear(actor=actor, reason=reason):
            raise RefusedError("ingest", "it is not halted", "Nothing to resume")
        self._cleared.set()

    async def resync(self, *, actor: str, reason: str) -> None:
        """Accept what is gone, read on from what the broker has, and lift the halt.

        The gaps stay on record with who accepted them.

        Raises:
            RefusedError: nothing is halted.
            BrokerAwayError: nobody can say what the broker has.
        """
        if await self._halts.current() is None:
            raise RefusedError("ingest", "it is not halted", "Only a halted consumer can jump")
        _, ranges = await self._lookout.look()
        gaps = find_gaps(await self._sink.offsets(KAFKA), ranges)
        await self._sink.resync(
            KAFKA,
            ranges,
            actor=actor,
            reason=reason,
            evidence=gaps,
        )
        await self.resume(actor=actor, reason=reason)

    async def _wait_while_halted(self) -> None:
        while halt := await self._halts.current():
            self._become("halted", halt.reason)
            await self._cleared.wait()
            self._cleared.clear()

    async def _consume(self) -> None:
        """Run the consumer again and again, over whatever passes by itself."""
        falls, last = 0, None
        while True:
            before = self._stored_at
            try:
                await self._run_once()
            except MENDABLE as error:
                again = type(error) is last and self._stored_at == before
                falls, last = (falls + 1 if again else 1), type(error)
                _log.warning("reading again", times=falls, problem=str(error))
                if end := outlasted(error, falls):
                    raise end from error
                self._become("waiting", str(error))
            except HaltError:
                raise
            except Exception as error:
                if not is_transient(error):
                    raise lasting(error) from error
                last = None
                self._become("waiting", told(error))
            await asyncio.sleep(_RETRY_S)

    async def _run_once(self) -> None:
        cluster, ranges = await self._lookout.ready()
        await self._check_topics()
        await self._sink.pin(KAFKA, ranges)
        reader = ChunkReader(
            self._sink,
            key=self._key,
            kinds=self._settings.topics.kinds,
            unsigned_sources=self._settings.unsigned_sources,
            broker=self._lookout,
            meter=self.meter,
        )
        try:
            async with _running(build_app(self._consumer_settings(), reader)) as app:
                self._become("running", None)
                await self._watch(app, reader, cluster)
        finally:
            self._stored_at = reader.stored_at or self._stored_at  # also since the last look
            await reader.close()

    async def _check_topics(self) -> None:
        """Warn of settings that could lose events. It reads all the same."""
        try:
            found = await self._admin.settings(tuple(self._settings.topics.kinds))
        except BrokerAwayError:
            return  # the consumer will say so
        faults = find_faults(found, dedupe_window_s=self._settings.dedupe_window_s)
        for fault in faults:
            if fault not in self._topic_faults:
                _log.warning("topic", topic=fault.topic, problem=fault.what, remedy=fault.remedy)
        self._topic_faults = faults

    async def _watch(self, app: IngestApp, reader: ChunkReader, cluster: Cluster) -> None:
        """Until the reader fails, the app crashes, a topic changes, or nothing moves any more."""
        watchdog = Watchdog(self._settings.stuck_s, now_s=time.monotonic())
        verify_at_s = time.monotonic() + _VERIFY_EVERY_S
        committed: Mapping[Partition, int] = {}
        while True:
            await asyncio.wait([reader.failure], timeout=_TICK_S)
            _raise_failure(app, reader)
            consumer = _consumer(app)
            progress = await _answer(consumer.thread.progress())
            self._stored_at = reader.stored_at or self._stored_at
            self._lags = lags(progress, consumer.handed, reader.stored)
            stored = dict(reader.stored)
            if committed != stored and await _answer(consumer.thread.tell_group(stored)):
                committed = stored
            now_s = time.monotonic()
            if now_s >= verify_at_s:
                verify_at_s = now_s + _VERIFY_EVERY_S
                if (found := await self._lookout.verify()) is None:
                    watchdog.excuse(now_s=now_s)
                    continue
                before, (cluster, ranges) = cluster, found
                if cluster != before:  # a partition may have been added, no more
                    await reader.check(ranges, kinds=OF_IDENTITY)
                self._become("running", None)
            unassigned = cluster.partitions - progress.keys()
            watchdog.see(
                progress, consumer.handed, reader.stored, unassigned=unassigned, now_s=now_s
            )
            if watchdog.should_rejoin(now_s=now_s):
                _log.warning("asking for partitions", partitions=sorted(unassigned))
                await _answer(consumer.thread.rejoin())

    async def _put_on_record(self, error: HaltError) -> None:
        """Best effort: the store may be what failed, and the process ends in any case."""
        try:
            async with asyncio.timeout(_RECORD_S):
                if isinstance(error, FreshStartError):
                    await self._halts.note_end(str(error))
                else:
                    await self._halts.record(str(error), _detail(error))
        except Exception as failure:  # noqa: BLE001 - nothing may keep the process from ending
            _log.error("halt not recorded", halt=str(error), failure=type(failure).__name__)

    def _consumer_settings(self) -> ConsumerSettings:
        return ConsumerSettings(
            bootstrap=self._settings.bootstrap,
            security=self._settings.security,
            group=self._settings.group,
            instance=f"{self._settings.group}-0",
            topics=tuple(self._settings.topics.kinds),
            session_timeout_s=self._settings.session_timeout_s,
            directory=self._settings.directory / "faust",
        )

    def _become(self, state: State, problem: str | None) -> None:
        if (state, problem) != (self._state, self._problem):
            _log.info("ingest", state=state, problem=problem)
        self._state, self._problem = state, problem


@asynccontextmanager
async def _running(app: IngestApp) -> AsyncIterator[IngestApp]:
    """The app on this loop.

    Raises:
        ClientFellError: it does not start.
        FreshStartError: it does not end.
    """
    bind_to_running_loop(app)
    app.finalize()
    try:
        with blaming_client():
            await _start(app)
        yield app
    finally:
        try:
            async with asyncio.timeout(_STOP_S):
                await app.stop()
        except TimeoutError as error:
            raise FreshStartError(
                "consumer",
                f"it does not stop within {_STOP_S:.0f} s",
                "The process ends; started again it reads on from the store",
            ) from error


async def _start(app: IngestApp) -> None:
    """Faust waits for its first partitions, and so for ever where the group does not take us."""
    starting = asyncio.ensure_future(app.maybe_start())
    try:
        async with asyncio.timeout(_START_S):
            while not starting.done():
                await asyncio.wait([starting], timeout=_TICK_S)
                await _consumer(app).thread.check_group()
        starting.result()
    finally:
        starting.cancel()


def _raise_failure(app: IngestApp, reader: ChunkReader) -> None:
    if reader.failure.done() and (error := reader.failure.exception()):
        raise error
    if app.crashed:
        with blaming_client():
            raise app.crash_reason or RuntimeError("the Faust app crashed")


async def _answer(question: Awaitable[T]) -> T:
    """An answer from the consumer's thread. Raises StuckError where it gives none."""
    asked = asyncio.ensure_future(question)
    try:
        for _ in range(2):  # the first wait may have passed while this process was stopped
            done, _ = await asyncio.wait([asked], timeout=_ANSWER_S)
            if done:
                with blaming_client():
                    return asked.result()
    finally:
        asked.cancel()
    raise StuckError(
        "consumer",
        f"its thread gave no answer in {2 * _ANSWER_S:.0f} s",
        "The process ends; started again it reads on from the store",
    )


def _consumer(app: IngestApp) -> ChunkConsumer:
    return app.consumer  # pyright: ignore[reportReturnType] - IngestApp makes no other


def _detail(error: HaltError) -> dict[str, object]:
    gaps = error.gaps if isinstance(error, GapError) else []
    return {"where": error.where, "problem": error.problem, "remedy": error.remedy, "gaps": gaps}
