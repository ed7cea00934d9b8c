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

from consumers.app import ChunkConsumer, ConsumerSettings, IngestApp, build_app
from consumers.gaps import GapError, find_gaps
from consumers.lookout import Lookout
from consumers.quiet import few_client_logs
from consumers.reader import ChunkReader
from consumers.topics import Cluster, TopicAdmin, Topics
from consumers.watchdog import StuckError, Watchdog, lags
from daemon.domain.errors import AdaptdError, ChainError, HaltError, RefusedError
from daemon.domain.ingest import KAFKA, Partition
from daemon.domain.kafka import KafkaSecurity
from daemon.domain.ports import EventSink, HaltBook

T = TypeVar("T")
State = Literal["starting", "waiting", "running", "halted"]
_log = structlog.get_logger(__name__)
_TICK_S = 1.0
_VERIFY_EVERY_S = 3.0
_RETRY_S = 1.0
_ANSWER_S = 10.0
_START_S = 60.0
_STOP_S = 30.0
_MAX_ATTEMPTS = 5  # failures in a row without a stored chunk between them; then a person looks


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


class ConsumerFailedError(AdaptdError):
    """The consumer ended by an error that a fresh one may not meet."""


class ZombieError(HaltError):
    """The consumer does not end. Only a new process helps; nothing is stored as halted."""


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
        self._cleared = asyncio.Event()
        self._state: State = "starting"
        self._problem: str | None = None
        self._lags: dict[Partition, int] = {}
        self._stored_at: datetime | None = None

    async def run(self) -> None:
        """Consume until cancelled. A halt in force is waited out: see `resume` and `resync`.

        Raises:
            HaltError: it cannot go on; the halt is stored. End the process with `os._exit(70)`:
                a stuck client thread would keep a normal exit waiting.
        """
        try:
            with few_client_logs():
                await self._wait_while_halted()
                await self._consume()
        except HaltError as error:
            self._become("halted", str(error))
            if not isinstance(error, ZombieError):
                await self._halts.record(str(error), _detail(error))
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
        cluster, ranges = await self._lookout.look()
        gaps = find_gaps(await self._sink.offsets(KAFKA), ranges)
        await self._sink.resync(
            KAFKA,
            ranges,
            cluster_id=cluster.cluster_id,
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
        """Run the consumer again and again; give up where it keeps failing and stores nothing."""
        attempts = 0
        while True:
            began_s, before = time.monotonic(), self._stored_at
            try:
                await self._run_once()
            except (StuckError, ChainError, ConsumerFailedError) as error:
                lasted_s = time.monotonic() - began_s
                fruitful = self._stored_at != before or lasted_s > 2 * self._settings.stuck_s
                attempts = 1 if fruitful else attempts + 1
                _log.warning("consumer failed", attempts=attempts, problem=str(error))
                if attempts >= _MAX_ATTEMPTS:
                    raise HaltError(
                        "consumer",
                        f"it failed {attempts} times in a row, last: {error}",
                        "Mend the cause, then run `adaptd ingest resume`",
                    ) from error
                self._become("waiting", str(error))
            await asyncio.sleep(_RETRY_S)

    async def _run_once(self) -> None:
        cluster, ranges = await self._lookout.ready()
        await self._sink.pin(KAFKA, ranges, cluster_id=cluster.cluster_id)
        reader = ChunkReader(
            self._sink,
            key=self._key,
            kinds=self._settings.topics.kinds,
            unsigned_sources=self._settings.unsigned_sources,
            cluster_id=cluster.cluster_id,
            topic_ids={name: topic_id for name, (topic_id, _) in cluster.topics.items()},
        )
        try:
            async with _running(build_app(self._consumer_settings(), reader)) as app:
                self._become("running", None)
                await self._watch(app, reader, cluster)
        finally:
            reader.close()

    async def _watch(self, app: IngestApp, reader: ChunkReader, cluster: Cluster) -> None:
        """Until the reader fails, the app crashes, a topic changes, or nothing moves any more."""
        watchdog = Watchdog(self._settings.stuck_s, now_s=time.monotonic())
        verify_at_s = time.monotonic() + _VERIFY_EVERY_S
        told: Mapping[Partition, int] = {}
        while True:
            await asyncio.wait([reader.failure], timeout=_TICK_S)
            _raise_failure(app, reader)
            consumer = _consumer(app)
            progress = await _answer(consumer.thread.progress())
            self._stored_at = reader.stored_at or self._stored_at
            self._lags = lags(progress, consumer.handed, reader.stored)
            if told != reader.stored and await _answer(consumer.thread.tell_group(reader.stored)):
                told = dict(reader.stored)
            now_s = time.monotonic()
            if now_s >= verify_at_s:
                verify_at_s = now_s + _VERIFY_EVERY_S
                if (found := await self._lookout.verify(cluster)) is None:
                    watchdog.excuse(now_s=now_s)
                    continue
                cluster = found
                self._become("running", None)
            unassigned = cluster.partitions - progress.keys()
            watchdog.see(
                progress, consumer.handed, reader.stored, unassigned=unassigned, now_s=now_s
            )
            if watchdog.should_rejoin(now_s=now_s):
                _log.warning("asking for partitions", partitions=sorted(unassigned))
                await _answer(consumer.thread.rejoin())

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
        ConsumerFailedError: it does not start.
        ZombieError: it does not end.
    """
    bind_to_running_loop(app)
    app.finalize()
    try:
        try:
            async with asyncio.timeout(_START_S):
                await app.maybe_start()
        except Exception as error:
            raise _failed(error) from error
        yield app
    finally:
        try:
            async with asyncio.timeout(_STOP_S):
                await app.stop()
        except TimeoutError as error:
            raise ZombieError(
                "consumer", f"it does not stop within {_STOP_S:.0f} s", "Restart the daemon"
            ) from error


def _raise_failure(app: IngestApp, reader: ChunkReader) -> None:
    error = reader.failure.exception() if reader.failure.done() else None
    if error is None and app.crashed:
        error = app.crash_reason or RuntimeError("the Faust app crashed")
    if error is None:
        return
    if isinstance(error, HaltError):
        raise error
    raise _failed(error) from error


def _failed(error: BaseException) -> ConsumerFailedError:
    return ConsumerFailedError(
        "consumer", f"{type(error).__name__}: {error}", "It is started again by itself"
    )


async def _answer(question: Awaitable[T]) -> T:
    """An answer from the consumer's thread. Raises StuckError where it gives none."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            return await question
    except TimeoutError as error:
        raise StuckError(
            "consumer", f"its thread gave no answer in {_ANSWER_S:.0f} s", "It is started again"
        ) from error


def _consumer(app: IngestApp) -> ChunkConsumer:
    return app.consumer  # pyright: ignore[reportReturnType] - IngestApp makes no other


def _detail(error: HaltError) -> dict[str, object]:
    gaps = error.gaps if isinstance(error, GapError) else []
    return {"where": error.where, "problem": error.problem, "remedy": error.remedy, "gaps": gaps}
