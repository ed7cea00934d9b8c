"""Sends what the spool holds, oldest first, from one thread, and remembers how far it got."""

import threading

import msgspec
import structlog

from adaptd.daemon.wire.events import Interaction, encode_event
from adaptd.daemon.wire.routes import ThreadState
from adaptd.daemon.wire.texts import NOT_DECODED
from adaptd.serving.capture.delivery import Delivery, Event
from adaptd.serving.capture.interactions import without_texts
from adaptd.serving.capture.spool import Batch, Spool
from adaptd.serving.capture.supervised_thread import SupervisedThread


class _Key(msgspec.Struct):
    id: str
    unit: str | None = None


class Shipping:
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
        """Attempts that failed, for whatever reason."""
        return self._thread.failures

    def start(self) -> None:
        self._thread.start()

    def state(self) -> ThreadState:
        return self._thread.state()

    def wake(self) -> None:
        """There is something new in the spool."""
        self._wake.set()

    def close(self, limit_s: float) -> bool:
        """Send what is there once more and stop. What is not accepted stays in the spool.

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
        self._ship(batch)
        return True

    def _ship(self, batch: Batch) -> None:
        events, unusable = self._read_lines(batch.lines)
        for event in self._delivery.deliver(events):
            unusable += self._send_lighter(event)
        for line in unusable:  # only now: a batch that is not accepted comes here again
            self._spool.set_aside(line)
        self._spool.acknowledge(batch)
        for line in unusable:
            self._log.error("event_refused", bytes=len(line), file="refused.ndjson")
        self.refused += len(unusable)
        self.shipped += len(batch.lines) - len(unusable)

    def _read_lines(self, lines: list[bytes]) -> tuple[list[Event], list[bytes]]:
        """The lines with their keys, and those that a broken disk has spoilt."""
        events, spoilt = [], []
        for line in lines:
            try:
                key = msgspec.json.decode(line, type=_Key)
            except NOT_DECODED:
                spoilt.append(line)
            else:
                events.append(Event(key.unit or key.id, line))
        return events, spoilt

    def _send_lighter(self, event: Event) -> list[bytes]:
        """Send an interaction that is too large for the receiver without its texts.

        Returns what even so nobody takes.
        """
        try:
            interaction = without_texts(msgspec.json.decode(event.value, type=Interaction))
        except NOT_DECODED:
            return [event.value]
        lighter = Event(event.key, encode_event(interaction))
        return [refused.value for refused in self._delivery.deliver([lighter])]
