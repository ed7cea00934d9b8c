"""The topic of dead letters: each letter in the store is published to Kafka at least once."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import msgspec
import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError

from adaptd.consumers.kafka.topic_admin import BrokerAwayError, TopicAdmin
from adaptd.daemon.domain.dead_letters import DeadLetter
from adaptd.daemon.domain.ports import LetterBook
from adaptd.daemon.wire.errors import SettingsError
from adaptd.daemon.wire.kafka import KafkaSecurity
from adaptd.daemon.wire.kafka_clients import connect

_log = structlog.get_logger(__name__)
_STEP_LETTERS = 500
_STEP_BYTES = 8 << 20
_MAX_VALUE_BYTES = 900_000  # brokers take 1 MiB by default, headers included
_LOOK_S = 1.0
_AGAIN_S = 15.0
_ANSWER_S = 15.0
_CLOSE_S = 3.0  # at the daemon's end, even where a step still waits for the broker


class OutboxSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the outbox. Without `create_topic` it waits for a missing topic.

    The defaults stand in `daemon.settings`.
    """

    bootstrap: str
    topic: str
    create_topic: bool
    partitions: int
    security: KafkaSecurity


class DeadLetterOutbox:
    """Publishes letters that are in the store and not in the topic. `problem`: why it waits.

    The key of a record is the letter's id, made of its address, so a reader of the topic can tell
    a letter that was published twice.
    """

    def __init__(self, settings: OutboxSettings, book: LetterBook) -> None:
        self._settings = settings
        self._book = book
        self._producer: KafkaProducer | None = None
        self.problem: str | None = None

    async def run(self) -> None:
        """Work until cancelled. No other service waits for the outbox or its broker."""
        thread = ThreadPoolExecutor(1, "dead-letters")
        try:
            while True:
                letters = await self._book.unpublished(limit=_STEP_LETTERS, max_bytes=_STEP_BYTES)
                if not letters:
                    await asyncio.sleep(_LOOK_S)
                    continue
                try:
                    await self._publish_letters(letters, thread)
                    self._set_problem(None)
                except (BrokerAwayError, SettingsError) as error:
                    self._set_problem(f"dead letters wait to be published: {error.problem}")
                    await asyncio.sleep(_AGAIN_S)
        finally:
            closing = thread.submit(self._close_producer)
            await asyncio.to_thread(wait, [closing], _CLOSE_S)  # or its sockets stay open
            thread.shutdown(wait=False)

    async def _publish_letters(
        self, letters: Sequence[DeadLetter], thread: ThreadPoolExecutor
    ) -> None:
        if self._producer is None:
            await self._find_topic()
        loop = asyncio.get_running_loop()
        taken = await loop.run_in_executor(thread, self._send_all, letters)
        if taken:
            await self._book.mark_published(taken)

    async def _find_topic(self) -> None:
        """Raise BrokerAwayError where the topic does not exist and may not be created."""
        admin = TopicAdmin(self._settings.bootstrap, security=self._settings.security)
        name = self._settings.topic
        try:
            if not (await admin.describe([name])).missing([name]):
                return
            if not self._settings.create_topic:
                raise BrokerAwayError(
                    self._settings.bootstrap,
                    f"there is no topic {name}",
                    "Create it, or set ADAPTD_KAFKA_CREATE_TOPICS=true",
                )
            partitions = self._settings.partitions
            await admin.create([name], partitions=partitions)
            _log.info("dead_letter_topic_created", topic=name, partitions=partitions)
        finally:
            await admin.close()

    def _send_all(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Send the letters and wait; return those that the broker has acknowledged."""
        try:
            sent = [self._send_letter(letter) for letter in letters]
            for letter, future in zip(letters, sent, strict=True):
                self._await_answer(letter, future)
        except (KafkaError, OSError) as error:
            self._close_producer()
            raise BrokerAwayError(
                self._settings.bootstrap,
                f"{self._settings.topic} does not take them ({type(error).__name__})",
                "Check the broker and the topic",
            ) from error
        return list(letters)

    def _send_letter(self, letter: DeadLetter, *, max_bytes: int = _MAX_VALUE_BYTES) -> Any:
        value = letter.bytes or b""
        return self._connect_producer().send(
            self._settings.topic,
            value[:max_bytes],
            key=letter.id.encode(),
            headers=_make_headers(letter, kept_bytes=min(len(value), max_bytes)),
        )

    def _await_answer(self, letter: DeadLetter, future: Any) -> None:
        # A broker that takes less than is usual gets the headers alone.
        try:
            future.get(timeout=_ANSWER_S + 1)
        except MessageSizeTooLargeError:
            self._send_letter(letter, max_bytes=0).get(timeout=_ANSWER_S + 1)

    def _connect_producer(self) -> KafkaProducer:
        if self._producer is None:
            limit_ms = int(_ANSWER_S * 1000)
            options: dict[str, Any] = {
                "bootstrap_servers": self._settings.bootstrap.split(","),
                "client_id": "adaptd-dead-letters",
                "acks": "all",
                "enable_idempotence": True,
                "allow_auto_create_topics": False,
                "linger_ms": 5,
                "retry_backoff_ms": 500,
                "metrics_enabled": False,
                "bootstrap_timeout_ms": limit_ms,
                "max_block_ms": limit_ms,
                "request_timeout_ms": limit_ms - 100,
                "delivery_timeout_ms": limit_ms,
                **self._settings.security.client_options(),
            }
            self._producer = connect(KafkaProducer, **options)
        return self._producer

    def _close_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=1)

    def _set_problem(self, problem: str | None) -> None:
        if problem != self.problem:
            _log.info("dead_letter_outbox_changed", problem=problem)
        self.problem = problem


def _make_headers(letter: DeadLetter, *, kept_bytes: int) -> list[tuple[str, bytes]]:
    """Make headers of the letter's address and reason; `adaptd-size` where its value is cut."""
    fields = {
        "adaptd-reason": letter.reason,
        "adaptd-detail": letter.detail,
        "adaptd-source": letter.source,
        "adaptd-topic": letter.topic or "",
        "adaptd-partition": letter.partition,
        "adaptd-position": letter.position,
        "adaptd-index": letter.batch_index,
        "adaptd-received-at": letter.received_at.isoformat(),
    }
    if kept_bytes < len(letter.bytes or b""):
        fields["adaptd-size"] = len(letter.bytes or b"")
    return [(name, str(value).encode()) for name, value in fields.items()]
