"""Sends what the spool holds, oldest first, from one thread, and remembers how far it got."""

import threading

import msgspec
import structlog

from daemon.domain.events import Interaction, encode_event
from daemon.domain.texts import NOT_DECODED
from serving.assembly import without_texts
from serving.delivery import Delivery, DeliveryError, Event
from serving.spool import Batch, Spool

FIRST_RETRY_S = 0.2
LAST_RETRY_S = 5.0


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
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="adaptd-shipping", daemon=True)
        self._retry_s = FIRST_RETRY_S
        self.shipped = 0
        self.failures = 0
        self.refused = 0

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something new in the spool."""
        self._wake.set()

    def close(self, limit_s: float) -> bool:
        """Send what is there once more and stop. What is not accepted stays in the spool.

        False where that took longer than `limit_s`; the thread then ends with the process.
        """
        self._closing.set()
        self._wake.set()
        self._thread.join(limit_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            self._wake.clear()
            batch = self._spool.read()
            if batch is not None and self._ship(batch):
                continue
            if self._closing.is_set():
                break
            if batch is None:
                self._wake.wait()
        self._delivery.close()

    def _ship(self, batch: Batch) -> bool:
        """Send one batch. False where it was not accepted, after the pause before a retry."""
        before = self.refused
        try:
            refused = self._delivery.deliver(self._events(batch.lines))
            for event in refused:
                self._send_lighter(event)
            self._spool.acknowledge(batch)
        except Exception as error:  # noqa: BLE001 - a client library may raise anything, and this thread must live
            self._wait_after(error)
            return False
        self.shipped += len(batch.lines) - (self.refused - before)
        if self._retry_s > FIRST_RETRY_S:
            self._log.info("shipping_again", waiting=self._spool.depth)
        self._retry_s = FIRST_RETRY_S
        return True

    def _events(self, lines: list[bytes]) -> list[Event]:
        """The lines with their keys. One that a broken disk has spoilt is set aside."""
        events = []
        for line in lines:
            try:
                key = msgspec.json.decode(line, type=_Key)
            except NOT_DECODED:
                self._set_aside(line)
            else:
                events.append(Event(key.unit or key.id, line))
        return events

    def _send_lighter(self, event: Event) -> None:
        """An interaction that is too large for the receiver goes without its texts."""
        try:
            interaction = without_texts(msgspec.json.decode(event.value, type=Interaction))
        except NOT_DECODED:
            self._set_aside(event.value)
            return
        lighter = Event(event.key, encode_event(interaction))
        for refused in self._delivery.deliver([lighter]):
            self._set_aside(refused.value)

    def _set_aside(self, line: bytes) -> None:
        self.refused += 1
        self._spool.set_aside(line)
        self._log.error("event_refused", bytes=len(line), file="refused.ndjson")

    def _wait_after(self, error: Exception) -> None:
        self.failures += 1
        if self._retry_s == FIRST_RETRY_S:  # the first of a row; the counter tells of the rest
            known = isinstance(error, DeliveryError | OSError)  # another's words may quote a line
            problem = str(error) if known else type(error).__name__
            self._log.warning("shipping_stopped", problem=problem, waiting=self._spool.depth)
        self._closing.wait(self._retry_s)
        self._retry_s = min(self._retry_s * 2, LAST_RETRY_S)
