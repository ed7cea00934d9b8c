"""The service that runs and watches the consumer, and halts on what only a person may decide.

The package's docstring has the order of an event from fetch to stored row.
"""

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from adaptd.consumers.kafka.chunk_reader import ChunkReader
from adaptd.consumers.kafka.failures import (
    RETRYABLE,
    as_halt,
    is_transient,
    safe_message,
    tries_exhausted,
)
from adaptd.consumers.kafka.faust_app import ChunkConsumer, ConsumerSettings, IngestApp, build_app
from adaptd.consumers.kafka.log_throttle import throttle_client_logs
from adaptd.consumers.kafka.running_app import ask_thread, consumer_of, raise_crash, run_app
from adaptd.consumers.kafka.stall_detector import Progress, StallDetector, count_lags
from adaptd.consumers.kafka.topic_admin import BrokerAwayError, Cluster, TopicAdmin, Topics
from adaptd.consumers.kafka.topic_advice import TopicFault, find_faults
from adaptd.consumers.kafka.topic_identity import (
    IDENTITY_KINDS,
    GapError,
    TopicIdentity,
    find_gaps,
)
from adaptd.daemon.domain.ingest import KAFKA, Partition
from adaptd.daemon.domain.meters import Meter
from adaptd.daemon.domain.ports import EventSink, HaltBook
from adaptd.daemon.wire.errors import FreshStartError, HaltError, RefusedError
from adaptd.daemon.wire.kafka import KafkaSecurity

IngestState = Literal["starting", "waiting", "running", "halted"]
_log = structlog.get_logger(__name__)
_TICK_S = 1.0
_VERIFY_EVERY_S = 3.0
_RETRY_S = 1.0
_RECORD_S = 5.0  # short, since the store may be what fails


class IngestSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the consumer. The defaults stand in `daemon.settings`.

    `directory` is any folder that exists; Faust makes an empty one in it. `partitions` is for the
    topics that `create_topics` creates. `unsigned_sources` are the sources that feedback without a
    gateway's signature may claim.
    """

    bootstrap: str
    directory: Path
    security: KafkaSecurity
    group: str
    create_topics: bool
    partitions: int
    session_timeout_s: float
    unsigned_sources: frozenset[str]
    dedupe_window_s: float  # the sink's: topics should keep events that long
    topics: Topics = Topics()
    stuck_s: float = 60


class PartitionLag(msgspec.Struct, frozen=True, kw_only=True):
    """The position of one partition.

    `lag` counts offsets not stored yet, transaction markers among them; None: not assigned.
    """

    topic: str
    partition: int
    next_offset: int
    lag: int | None = None
    record_at: datetime | None = None


class IngestStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the consumer. `problem` is the reason of a wait or a halt."""

    state: IngestState
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
        self._identity = TopicIdentity(
            self._admin,
            sink,
            names=tuple(settings.topics.kinds),
            create_partitions=settings.partitions if settings.create_topics else None,
            on_waiting=lambda problem: self._set_state("waiting", problem),
        )
        self.meter = Meter()
        self._cleared = asyncio.Event()
        self._state: IngestState = "starting"
        self._problem: str | None = None
        self._lags: dict[Partition, int] = {}
        self._stored_at: datetime | None = None
        self._topic_faults: list[TopicFault] = []

    async def run(self) -> None:
        """Consume until cancelled. First wait while a halt is in force: see `resume`, `resync`.

        Raises:
            HaltError: the consumer cannot go on. End the process with `os._exit(70)`: a stuck
                client thread would keep a normal exit waiting. The halt is stored, so the next
                process waits for a person. After a FreshStartError the next process reads on.
        """
        try:
            with throttle_client_logs():
                await self._wait_while_halted()
                await self._keep_consuming()
        except HaltError as error:
            self._set_state("halted", str(error))
            await self._record_halt(error)
            raise
        finally:
            await self._admin.close()

    async def status(self) -> IngestStatus:
        """Return what the consumer is doing, and how far behind each partition is."""
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
        """Accept the gaps, read on from what the broker has, and lift the halt.

        The gaps stay on record with the actor who accepted them.

        Raises:
            RefusedError: nothing is halted.
            BrokerAwayError: the broker does not answer.
        """
        if await self._halts.current() is None:
            raise RefusedError("ingest", "it is not halted", "Only a halted consumer can jump")
        _, ranges = await self._identity.read_topics()
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
            self._set_state("halted", halt.reason)
            await self._cleared.wait()
            self._cleared.clear()

    async def _keep_consuming(self) -> None:
        """Run the consumer again after every failure that may pass."""
        failures, last = 0, None
        while True:
            before = self._stored_at
            try:
                await self._run_once()
            except RETRYABLE as error:
                again = type(error) is last and self._stored_at == before
                failures, last = (failures + 1 if again else 1), type(error)
                _log.warning("read_retried", times=failures, problem=str(error))
                if end := tries_exhausted(error, failures):
                    raise end from error
                self._set_state("waiting", str(error))
            except HaltError:
                raise
            except Exception as error:
                if not is_transient(error):
                    raise as_halt(error) from error
                last = None
                self._set_state("waiting", safe_message(error))
            await asyncio.sleep(_RETRY_S)

    async def _run_once(self) -> None:
        cluster, ranges = await self._identity.wait_until_ready()
        await self._check_topics()
        await self._sink.pin(KAFKA, ranges)
        reader = ChunkReader(
            self._sink,
            key=self._key,
            kinds=self._settings.topics.kinds,
            unsigned_sources=self._settings.unsigned_sources,
            broker=self._identity,
            meter=self.meter,
        )
        try:
            async with run_app(build_app(self._consumer_settings(), reader)) as app:
                self._set_state("running", None)
                await self._watch_consumer(app, reader, cluster)
        finally:
            self._stored_at = reader.stored_at or self._stored_at  # later than the last turn
            await reader.close()

    async def _check_topics(self) -> None:
        """Warn of topic settings that could lose events. Events are read all the same."""
        try:
            found = await self._admin.settings(tuple(self._settings.topics.kinds))
        except BrokerAwayError:
            return  # the consumer meets and reports the same
        faults = find_faults(found, dedupe_window_s=self._settings.dedupe_window_s)
        for fault in faults:
            if fault not in self._topic_faults:
                _log.warning(
                    "topic_setting_risky",
                    topic=fault.topic,
                    problem=fault.what,
                    remedy=fault.remedy,
                )
        self._topic_faults = faults

    async def _watch_consumer(self, app: IngestApp, reader: ChunkReader, cluster: Cluster) -> None:
        """Watch one run until the reader fails, the app crashes or nothing moves any more.

        Each turn, about once a second:

        1. Raise what ended the reader or the app.
        2. Ask the consumer's thread how far it has fetched, and update the lags for `status`.
        3. Commit the stored offsets to Kafka, for lag tools only.
        4. Every 3 s, check that each topic is still the one that was read. While the broker is
           away, waiting is right: reset the stall detector's timer and begin the next turn.
        5. Raise StalledError where something waits and nothing has moved for `stuck_s`.
        6. Ask the group for partitions that have no reader.
        """
        detector = StallDetector(self._settings.stuck_s, now_s=time.monotonic())
        verify_at_s = time.monotonic() + _VERIFY_EVERY_S
        committed: Mapping[Partition, int] = {}
        while True:
            await asyncio.wait([reader.failure], timeout=_TICK_S)
            _raise_failure(app, reader)
            consumer = consumer_of(app)
            progress = await self._read_progress(consumer, reader)
            stored = dict(reader.stored)
            if committed != stored and await ask_thread(consumer.thread.commit_advisory(stored)):
                committed = stored
            now_s = time.monotonic()
            if now_s >= verify_at_s:
                verify_at_s = now_s + _VERIFY_EVERY_S
                if (found := await self._verify_topics(reader, cluster)) is None:
                    detector.reset_timer(now_s=now_s)
                    continue
                cluster = found
            unassigned = cluster.partitions - progress.keys()
            detector.note_progress(
                progress, consumer.handed, reader.stored, unassigned=unassigned, now_s=now_s
            )
            if detector.should_rejoin(now_s=now_s):
                _log.warning("partitions_requested", partitions=sorted(unassigned))
                await ask_thread(consumer.thread.rejoin())

    async def _read_progress(self, consumer: ChunkConsumer, reader: ChunkReader) -> Progress:
        progress = await ask_thread(consumer.thread.progress())
        self._stored_at = reader.stored_at or self._stored_at
        self._lags = count_lags(progress, consumer.handed, reader.stored)
        return progress

    async def _verify_topics(self, reader: ChunkReader, before: Cluster) -> Cluster | None:
        """Return the topics as they are now; None where the broker does not answer."""
        if (found := await self._identity.try_read_topics()) is None:
            return None
        cluster, ranges = found
        if cluster != before:  # a partition may have been added, and nothing else
            await reader.check_gaps(ranges, kinds=IDENTITY_KINDS)
        self._set_state("running", None)
        return cluster

    async def _record_halt(self, error: HaltError) -> None:
        # Best effort: the store may be what failed, and the process ends in any case.
        try:
            async with asyncio.timeout(_RECORD_S):
                if isinstance(error, FreshStartError):
                    await self._halts.note_end(str(error))
                else:
                    await self._halts.record(str(error), _halt_detail(error))
        except Exception as failure:  # noqa: BLE001 - nothing may keep the process from ending
            _log.error("halt_not_recorded", halt=str(error), failure=type(failure).__name__)

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

    def _set_state(self, state: IngestState, problem: str | None) -> None:
        if (state, problem) != (self._state, self._problem):
            _log.info("ingest_state_changed", state=state, problem=problem)
        self._state, self._problem = state, problem


def _raise_failure(app: IngestApp, reader: ChunkReader) -> None:
    if reader.failure.done() and (error := reader.failure.exception()):
        raise error
    raise_crash(app)


def _halt_detail(error: HaltError) -> dict[str, object]:
    gaps = error.gaps if isinstance(error, GapError) else []
    return {"where": error.where, "problem": error.problem, "remedy": error.remedy, "gaps": gaps}
