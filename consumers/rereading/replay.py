"""Replays: parts of the log read again into the store, beside the live consumer."""

import asyncio
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
import structlog

from adaptd.consumers.decoding.decode import decode
from adaptd.consumers.decoding.json_events import Kind
from adaptd.consumers.decoding.records import LogRecords, record_time
from adaptd.consumers.kafka.log_reader import LogChunk, LogGoneError, LogReader
from adaptd.consumers.kafka.topic_admin import BrokerAwayError, TopicAdmin
from adaptd.consumers.rereading.ranges import ask_ranges
from adaptd.daemon.domain.ingest import Decoded, LogRange, Span
from adaptd.daemon.domain.ports import EventSink, ReplayBook
from adaptd.daemon.domain.replays import Replay, ReplayRequest, ReplayState, source_of
from adaptd.daemon.wire.errors import AdaptdError, HaltError, RefusedError
from adaptd.daemon.wire.kafka import KafkaSecurity

_log = structlog.get_logger(__name__)
_LOOK_S = 5.0
_AGAIN_S = 3.0
_SILENCE_S = 30.0  # then the replay says so
_DAEMON = "daemon"


class ReplaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of replays. `kinds` are the live topics and what they hold.

    Other topics may be replayed too. The defaults stand in `daemon.settings`.
    """

    bootstrap: str
    kinds: Mapping[str, Kind]
    unsigned_sources: frozenset[str]
    security: KafkaSecurity


class ReplayService:
    """Runs replays one at a time, the oldest first.

    Rows and the replay's own offsets are stored in one transaction, so a replay continues where it
    was after a kill. The live consumer's offsets are never touched.
    """

    def __init__(
        self, settings: ReplaySettings, *, sink: EventSink, book: ReplayBook, key: bytes
    ) -> None:
        """`key` is derive(secret, "events"): what gateways sign with."""
        self._settings = settings
        self._sink = sink
        self._book = book
        self._records = LogRecords(
            key=key, kinds=settings.kinds, unsigned_sources=settings.unsigned_sources
        )
        self._wake = asyncio.Event()

    async def begin(self, asked: ReplayRequest, *, actor: str, reason: str) -> Replay:
        """Fix the ranges of a replay and start it.

        Raises:
            RefusedError: a topic does not exist, was recreated, or the request makes no sense.
            BrokerAwayError: the broker does not answer.
        """
        admin = TopicAdmin(self._settings.bootstrap, security=self._settings.security)
        try:
            cluster = await admin.describe(asked.topics)
        finally:
            await admin.close()
        async with self._make_reader() as log:
            ranges = await ask_ranges(
                asked, cluster, log=log, sink=self._sink, live=self._settings.kinds.keys()
            )
        now = datetime.now(UTC)
        replay = Replay(
            replay_id=f"{int(now.timestamp()):x}-{secrets.token_hex(2)}",
            state=ReplayState.RUNNING,
            asked=asked,
            ranges=ranges,
            actor=actor,
            reason=reason,
            created_at=now,
        )
        starts = {
            part.place: LogRange(part.topic_id, part.start, part.end, cluster.cluster_id)
            for part in ranges
        }
        await self._sink.pin(source_of(replay.replay_id), starts)
        await self._book.add(replay)
        self._wake.set()
        return await self._book.get(replay.replay_id)

    async def cancel(self, replay_id: str, *, actor: str, reason: str) -> Replay:
        """End a replay. What it has stored stays. Safe to repeat."""
        await self._book.finish(replay_id, ReplayState.CANCELLED, actor=actor, problem=reason)
        return await self._book.get(replay_id)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            replay = await self._book.next_running()
            if replay is not None:
                await self._try_replay(replay)
                continue
            self._wake.clear()
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _try_replay(self, replay: Replay) -> None:
        """Read until the replay is finished, or the broker is away."""
        try:
            await self._check_topics(replay)
            await self._read_ranges(replay)
        except BrokerAwayError as error:
            await self._book.note(replay.replay_id, str(error))
            await asyncio.sleep(_AGAIN_S)
        except (LogGoneError, HaltError, RefusedError) as error:
            await self._fail_replay(replay, error)

    async def _fail_replay(self, replay: Replay, error: AdaptdError) -> None:
        _log.warning("replay_failed", replay=replay.replay_id, problem=str(error))
        await self._book.finish(
            replay.replay_id, ReplayState.FAILED, actor=_DAEMON, problem=str(error)
        )

    async def _check_topics(self, replay: Replay) -> None:
        """Raise LogGoneError where a topic was deleted or recreated since the replay began."""
        admin = TopicAdmin(self._settings.bootstrap, security=self._settings.security)
        try:
            cluster = await admin.describe(replay.asked.topics)
        finally:
            await admin.close()
        for part in replay.ranges:
            found = cluster.topics.get(part.topic, (None, 0))[0]
            if part.topic not in cluster.topics or found != part.topic_id:
                raise LogGoneError(
                    part.topic, "the topic was deleted or recreated meanwhile", "Begin another one"
                )

    async def _read_ranges(self, replay: Replay) -> None:
        source = source_of(replay.replay_id)
        stored = await self._sink.offsets(source)
        parts = {
            part.place: (stored[part.place].next_offset, part.end)
            for part in replay.ranges
            if stored[part.place].next_offset < part.end
        }
        if parts:
            async with self._make_reader() as log:
                await log.assign(parts)
                if not await self._store_all(replay, log):
                    return
        if await self._book.finish(replay.replay_id, ReplayState.DONE, actor=_DAEMON):
            _log.info("replay_finished", replay=replay.replay_id)

    async def _store_all(self, replay: Replay, log: LogReader) -> bool:
        """Read to the end of the log's ranges. False: the replay was cancelled."""
        heard_s, noted = time.monotonic(), replay.problem
        while not log.finished:
            if (await self._book.get(replay.replay_id)).state is not ReplayState.RUNNING:
                return False
            chunks = await log.read()
            if chunks:
                await self._store_chunks(replay, chunks)
                heard_s = time.monotonic()
            problem = _describe_silence(time.monotonic() - heard_s)
            if problem != noted:
                await self._book.note(replay.replay_id, problem)
                noted = problem
        return True

    async def _store_chunks(self, replay: Replay, chunks: list[LogChunk]) -> None:
        source = source_of(replay.replay_id)
        await self._sink.write(await asyncio.to_thread(self._decode_chunks, source, chunks))

    def _decode_chunks(self, source: str, chunks: list[LogChunk]) -> Decoded:
        records = [self._records.read(record) for chunk in chunks for record in chunk.records]
        spans = [
            Span(
                chunk.partition,
                chunk.start,
                chunk.end,
                record_time(chunk.records[-1]) if chunk.records else None,
            )
            for chunk in chunks
        ]
        return decode(records, source=source, spans=spans)

    def _make_reader(self) -> LogReader:
        return LogReader(self._settings.bootstrap, security=self._settings.security)


def _describe_silence(silent_s: float) -> str | None:
    if silent_s < _SILENCE_S:
        return None
    return (
        "the broker sends nothing though offsets are left: it is away, or compaction removed the "
        "last records of the range, and then cancel it"
    )
