"""Builds the parts that read events again: replays, imports, redriven letters, the outbox."""

from collections.abc import Sequence
from typing import Any

import msgspec

from adaptd.consumers.doors.file_import import FileImporter, ImportedLines
from adaptd.consumers.doors.import_options import ImportStep
from adaptd.consumers.kafka.topic_admin import Topics
from adaptd.consumers.rereading.dead_letter_topic import DeadLetterOutbox, OutboxSettings
from adaptd.consumers.rereading.redrive import Redriver
from adaptd.consumers.rereading.replay import ReplayService, ReplaySettings
from adaptd.daemon.domain.dead_letters import LetterChoice, LetterCursor, Redriven
from adaptd.daemon.domain.replays import Replay, ReplayRequest
from adaptd.daemon.settings import Settings
from adaptd.daemon.store.ingest.replays import ReplayStore
from adaptd.daemon.store.stores import Stores
from adaptd.daemon.system.supervision import Service
from adaptd.daemon.web.ports import StatusProblem
from adaptd.daemon.wire.errors import MalformedError, RefusedError
from adaptd.daemon.wire.tokens import Principal


class Rereading:
    """Implements RereadingPort. `replayer` and `outbox` are None without a broker."""

    def __init__(
        self,
        *,
        book: ReplayStore,
        redriver: Redriver,
        desk: FileImporter,
        replayer: ReplayService | None = None,
        outbox: DeadLetterOutbox | None = None,
        own_topics: frozenset[str] = frozenset(),
    ) -> None:
        self._book = book
        self._redriver = redriver
        self._desk = desk
        self._replayer = replayer
        self._outbox = outbox
        self._own_topics = own_topics

    async def begin_replay(self, asked: ReplayRequest, *, actor: str, reason: str) -> Replay:
        if own := self._own_topics & set(asked.topics):
            problem = f"{', '.join(own)} holds dead letters, which the store has too"
            raise RefusedError("replay", problem, "Use `adaptd deadletters redrive`")
        return await self._require_replayer().begin(asked, actor=actor, reason=reason)

    async def cancel_replay(self, replay_id: str, *, actor: str, reason: str) -> Replay:
        return await self._require_replayer().cancel(replay_id, actor=actor, reason=reason)

    async def replay(self, replay_id: str) -> Replay:
        return await self._book.get(replay_id)

    async def replays(self, *, limit: int) -> Sequence[Replay]:
        return await self._book.list(limit=limit)

    async def import_lines(self, digest: str, body: bytes, principal: Principal) -> ImportedLines:
        """Take one request of `POST /v1/ingest/imports/{digest}`."""
        first, *lines = body.split(b"\n")  # the first line says what to do with the others
        try:
            step = msgspec.json.decode(first, type=ImportStep)
        except (msgspec.DecodeError, ValueError) as error:
            raise MalformedError("import", "its first line is not a step", str(error)) from error
        if not lines:  # the client asks where to go on after an interruption
            return await self._desk.position(digest, step.options)
        return await self._desk.take(digest, step, lines, principal)

    async def redrive(self, choice: LetterChoice) -> tuple[Sequence[Redriven], LetterCursor | None]:
        return await self._redriver.redrive(choice)

    def services(self) -> dict[str, Service]:
        found: dict[str, Service] = {}
        if self._replayer is not None:
            found["replays"] = self._replayer.run
        if self._outbox is not None:
            found["dead letters"] = self._outbox.run
        return found

    def notices(self) -> list[StatusProblem]:
        """Report problems that stop nothing."""
        problem = self._outbox.problem if self._outbox else None
        if problem is None:
            return []
        remedy = "They are safe in the store; check the broker and the topic"
        return [StatusProblem(level="warning", what=problem, remedy=remedy)]

    def _require_replayer(self) -> ReplayService:
        if self._replayer is None:
            remedy = "Set ADAPTD_KAFKA_BOOTSTRAP; files come in with `adaptd import`"
            raise RefusedError("replay", "no broker is set, so there is no log", remedy)
        return self._replayer


def build_rereading(settings: Settings, stores: Stores, *, key: bytes) -> Rereading:
    """`key` is derive(secret, "events"), which gateways sign with."""
    kinds, unsigned = Topics().kinds, frozenset(settings.kafka_unsigned_sources)
    events, book, letters = stores.events, stores.replays, stores.dead_letters
    parts: dict[str, Any] = {
        "book": book,
        "redriver": Redriver(events, letters, kinds=kinds, unsigned_sources=unsigned),
        "desk": FileImporter(events),
    }
    if settings.kafka_bootstrap is None:
        return Rereading(**parts)
    asked = ReplaySettings(
        bootstrap=settings.kafka_bootstrap,
        security=settings.kafka_security,
        kinds=kinds,
        unsigned_sources=unsigned,
    )
    parts["replayer"] = ReplayService(asked, sink=events, book=book, key=key)
    if topic := settings.kafka_dead_letters_topic:
        outbox = OutboxSettings(
            bootstrap=settings.kafka_bootstrap,
            security=settings.kafka_security,
            topic=topic,
            create_topic=settings.kafka_create_topics,
            partitions=settings.kafka_partitions,
        )
        parts |= {"outbox": DeadLetterOutbox(outbox, letters), "own_topics": frozenset({topic})}
    return Rereading(**parts)
