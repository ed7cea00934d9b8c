"""Takes exchanges off the request's path and puts their interactions on disk, from one thread."""

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from adaptd.daemon.wire.events import encode_event
from adaptd.serving.capture.exchange import Exchange
from adaptd.serving.capture.interactions import to_interaction, without_texts
from adaptd.serving.capture.spool import Spool, SpoolBusyError

BATCH = 256  # interactions a write and fsync
RETRY_S = 0.5


class CaptureSettings(Protocol):
    """Bounds of capture, as the gateway's settings give them."""

    @property
    def spool_dir(self) -> Path: ...
    @property
    def segment_bytes(self) -> int: ...
    @property
    def spool_bytes(self) -> int: ...
    @property
    def queue_bytes(self) -> int: ...
    @property
    def queue_rows(self) -> int: ...
    @property
    def max_event_bytes(self) -> int: ...


class InteractionRecorder:
    """A bounded queue and the thread that empties it into the spool.

    Two bounds, both reached only while the disk is slower than the answers. Above `queue_bytes` of
    waiting texts an exchange loses its texts (`texts_dropped`) and keeps its row. Above
    `queue_rows` waiting rows the row itself is lost (`rows_lost`): memory is finite.
    """

    def __init__(
        self,
        settings: CaptureSettings,
        *,
        on_spool: Callable[[Spool], None],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """`on_spool` gets the spool once its directory is ours, on the capture thread."""
        self._settings = settings
        self._on_spool = on_spool
        self._log = log
        self._queue: deque[Exchange] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._writing = 0
        self._thread = threading.Thread(target=self._run, name="adaptd-capture", daemon=True)
        self.on_append: Callable[[], None] = lambda: None
        self.texts_dropped = 0
        self.rows_lost = 0

    def start(self) -> None:
        self._thread.start()

    def record(self, exchange: Exchange) -> None:
        """Take an exchange. Never blocks on disk or broker, never raises."""
        with self._changed:
            ended = self._closing and not self._thread.is_alive()
            if ended or len(self._queue) >= self._settings.queue_rows:
                self.rows_lost += 1
                return
            if self._bytes + exchange.texts_bytes > self._settings.queue_bytes:
                exchange.drop_texts()
                self.texts_dropped += 1
            self._bytes += exchange.texts_bytes
            self._queue.append(exchange)
            self._changed.notify()

    @property
    def waiting(self) -> int:
        """Exchanges that are not on disk yet."""
        return len(self._queue) + self._writing

    def close(self, limit_s: float) -> bool:
        """Write what waits and stop. False where `limit_s` was too short; then rows are lost."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(limit_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        spool = self._open()
        if spool is None:
            return
        self._on_spool(spool)
        while exchanges := self._next_batch():
            lines = [line for exchange in exchanges if (line := self._line(exchange, spool))]
            self._append(spool, lines)
            self._writing = 0
            self.on_append()

    def _open(self) -> Spool | None:
        """The spool, as soon as an earlier process that is still ending lets go of it."""
        told = ""
        while not self._closing:
            try:
                settings = self._settings
                return Spool(settings.spool_dir, segment_bytes=settings.segment_bytes)
            except (OSError, SpoolBusyError) as error:
                if str(error) != told:
                    told = str(error)
                    self._log.error("spool_unusable", problem=told)
                self._pause()
        self.rows_lost += len(self._queue)
        return None

    def _next_batch(self) -> list[Exchange]:
        """What waits, at most BATCH; empty once closing and nothing does."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            self._bytes -= sum(exchange.texts_bytes for exchange in batch)
            self._writing = len(batch)
            return batch

    def _line(self, exchange: Exchange, spool: Spool) -> bytes | None:
        counted = exchange.texts_dropped
        try:
            if spool.size_bytes > self._settings.spool_bytes:
                exchange.drop_texts()
            interaction = to_interaction(exchange)
            line = encode_event(interaction)
            if len(line) > self._settings.max_event_bytes:
                interaction = without_texts(interaction)
                line = encode_event(interaction)
        except Exception as error:  # noqa: BLE001 - one bad exchange must not stop capture
            self.rows_lost += 1
            self._log.error("interaction_lost", id=exchange.id, error=type(error).__name__)
            return None
        self.texts_dropped += interaction.texts == "dropped" and not counted
        return line

    def _append(self, spool: Spool, lines: list[bytes]) -> None:
        """Try until the disk takes them; meanwhile the queue fills and its bounds hold."""
        while lines:
            try:
                return spool.append(lines)
            except OSError as error:
                self._log.error("spool_write_failed", problem=str(error), rows=len(lines))
                if self._closing:
                    self.rows_lost += len(lines)
                    return None
                self._pause()
        return None

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, timeout=RETRY_S)
