"""Send the lines of the spool, oldest first, in one thread, and keep the position reached."""

import threading

import msgspec
import structlog

from adaptd.daemon.wire.events import Interaction, encode_event
from adaptd.daemon.wire.routes import ThreadState
from adaptd.daemon.wire.texts import NOT_DECODED
from adaptd.serving.capture.delivery import Delivery, EncodedEvent
from adaptd.serving.capture.interactions import without_texts
from adaptd.serving.capture.spool import Batch, Spool
from adaptd.serving.capture.supervised_thread import SupervisedThread


class _Key(msgspec.Struct):
    id: str
    unit: str | None = None


class SpoolShipper:
    """At least once: a crash between acceptance and the saved position sends a batch again."""

    def __init__(
        self, spool: Spool, delivery: Delivery, *, log: structlog.typing.FilteringBoundLogger
    ) -> None:
        self._spool = spool
        self._delivery = delivery
        self._log = log
        self._wake = threading.Event()
        self._thread = SupervisedThread(
            "shipping",
            self._ship_next,
            wait=self._wake.wait,
            wake=self._wake.set,
            at_end=delivery.close,
            log=log,
        )
        self.shipped = 0
        self.refused = 0

    @property
    def failures(self) -> int:
        """Attempts that failed, for any reason."""
        return self._thread.failures

    def start(self) -> None:
        self._thread.start()

    def state(self) -> ThreadState:
        return self._thread.state()

    def wake(self) -> None:
        """Announce new lines in the spool."""
        self._wake.set()

    def close(self, limit_s: float) -> bool:
        """Send the rest once more and stop. Events that are not accepted stay in the spool.

        False where that took longer than `limit_s`; the thread then ends with the process.
        """
        return self._thread.stop(limit_s)

    def _ship_next(self) -> bool:
        """Send one batch. False where there is none.

        Raises:
            DeliveryError, OSError: it was not accepted, or the spool cannot be read or written.
        """
        self._wake.clear()
        batch = self._spool.read()
        if batch is None:
            return False
        self._ship_batch(batch)
        return True

    def _ship_batch(self, batch: Batch) -> None:
        events, unusable = self._read_lines(batch.lines)
        for event in self._delivery.deliver(events):
            unusable += self._send_lighter(event)
        for line in unusable:  # only now: a batch that is not accepted is read again
            self._spool.set_aside(line)
        self._spool.acknowledge(batch)
        for line in unusable:
            self._log.error("event_refused", bytes=len(line), file="refused.ndjson")
        self.refused += len(unusable)
        self.shipped += len(batch.lines) - len(unusable)

    def _read_lines(self, lines: list[bytes]) -> tuple[list[EncodedEvent], list[bytes]]:
        """Split lines into events with their keys, and lines that a broken disk has spoilt."""
        events, spoilt = [], []
        for line in lines:
            try:
                key = msgspec.json.decode(line, type=_Key)
            except NOT_DECODED:
                spoilt.append(line)
            else:
                events.append(EncodedEvent(key.unit or key.id, line))
        return events, spoilt

    def _send_lighter(self, event: EncodedEvent) -> list[bytes]:
        """Send an interaction that is too large for the receiver without its texts.

        Returns the lines that the receiver refuses even so.
        """
        try:
            interaction = without_texts(msgspec.json.decode(event.value, type=Interaction))
        except NOT_DECODED:
            return [event.value]
        lighter = EncodedEvent(event.key, encode_event(interaction))
        return [refused.value for refused in self._delivery.deliver([lighter])]
