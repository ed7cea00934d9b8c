"""Take exchanges off the request's path and write their interactions to disk, in one thread."""

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from adaptd.daemon.wire.events import encode_event
from adaptd.daemon.wire.routes import ThreadState
from adaptd.serving.capture.disk import Disk
from adaptd.serving.capture.exchange import Exchange
from adaptd.serving.capture.interactions import to_interaction, without_texts
from adaptd.serving.capture.spool import Spool
from adaptd.serving.capture.supervised_thread import SupervisedThread

BATCH = 256  # interactions a write and fsync
LAST_TRIES = 3  # to write at the end on a disk that fails; then rows are lost


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
        disk: Disk | None = None,
    ) -> None:
        """`on_spool` gets the spool once its directory is ours, on the capture thread.

        Where it raises it is called again; events are written to disk all the same.
        """
        self._settings = settings
        self._on_spool = on_spool
        self._log = log
        self._disk = disk
        self._queue: deque[Exchange] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._spool: Spool | None = None
        self._is_handed_on = False
        self._lines: list[bytes] = []  # off the queue and not on disk yet
        self._writing = 0
        self._is_announced = True
        self._thread = SupervisedThread(
            "capture",
            self._write_waiting,
            wait=self._wait_for_work,
            wake=self._notify_thread,
            at_end=self._count_lost,
            log=log,
            last_tries=LAST_TRIES,
        )
        self.on_append: Callable[[], None] = lambda: None
        self.texts_dropped = 0
        self.rows_lost = 0

    def start(self) -> None:
        self._thread.start()

    def state(self) -> ThreadState:
        return self._thread.state()

    def record(self, exchange: Exchange) -> None:
        """Take an exchange. Never blocks on disk or broker, never raises."""
        with self._changed:
            ended = self._thread.is_stopping and not self._thread.is_alive
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
        return self._thread.stop(limit_s)

    def _write_waiting(self) -> bool:
        """Write what waits and announce it. False where nothing waits any more.

        1. Open the spool, once an earlier process that is still ending has closed it.
        2. Write the batches that wait; the disk comes first, because memory is finite.
        3. Hand the spool to `on_spool`, once.
        4. Call `on_append`.

        Every step is done once: an error leaves the rest to the next call.

        Raises:
            SpoolBusyError, OSError: the spool cannot be used now.
        """
        settings = self._settings
        self._spool = self._spool or Spool(
            settings.spool_dir, segment_bytes=settings.segment_bytes, disk=self._disk
        )
        spool = self._spool
        for _ in range(1 + len(self._queue) // BATCH):
            self._write_batch(spool)
        if not self._is_handed_on:
            self._on_spool(spool)
            self._is_handed_on = True
        if not self._is_announced:
            self.on_append()
            self._is_announced = True
        return bool(self._queue)

    def _write_batch(self, spool: Spool) -> None:
        """Write a batch to disk: the one that failed before, else the next."""
        if not self._writing:
            exchanges = self._take_batch()
            self._lines = [line for each in exchanges if (line := self._encode_line(each, spool))]
        if self._lines:
            spool.append(self._lines)
            self._is_announced = False
        self._lines = []
        self._writing = 0

    def _take_batch(self) -> list[Exchange]:
        """Take what waits off the queue, at most BATCH."""
        with self._changed:
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            self._bytes -= sum(exchange.texts_bytes for exchange in batch)
            self._writing = len(batch)
            return batch

    def _encode_line(self, exchange: Exchange, spool: Spool) -> bytes | None:
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

    def _wait_for_work(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._thread.is_stopping)

    def _notify_thread(self) -> None:
        with self._changed:
            self._changed.notify()

    def _count_lost(self) -> None:
        """Count the rows that the disk did not take before the end."""
        with self._changed:
            lost = len(self._queue) + len(self._lines)
            self.rows_lost += lost
            self._queue.clear()
            self._lines = []
            self._writing = 0
        if lost:
            self._log.error("interactions_lost", rows=lost)
