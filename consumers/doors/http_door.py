"""Events over HTTP: read, stored and answered for one by one. The web layer mounts it."""

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from typing import Any

import msgspec

from adaptd.consumers.decoding.decode import SIGNED, Record, Sender, decode
from adaptd.consumers.decoding.json_events import (
    MAX_BATCH,
    MAX_EVENT_BYTES,
    UnreadableError,
    array_parts,
    count_events,
)
from adaptd.consumers.doors.outcomes import EventResult, outcomes
from adaptd.daemon.domain.ingest import HTTP, HTTP_PARTITION, LogRange, Span
from adaptd.daemon.domain.meters import Meter
from adaptd.daemon.domain.ports import EventSink
from adaptd.daemon.wire.errors import BusyError, RefusedError, StoreError, TooLargeError
from adaptd.daemon.wire.tokens import Principal

_GROUP_BYTES = 8 * 2**20  # one transaction's worth
_THREAD_BYTES = 64 * 2**10  # above this, decoding (about 20 µs an event) leaves the event loop


class BodyTooLargeError(TooLargeError):
    """Answer 413: split the body."""


class DoorBusyError(BusyError):
    """Answer 429 with Retry-After: the store is behind."""


class _Request:
    """A body waiting for its transaction."""

    def __init__(self, items: list[bytes], sender: Sender) -> None:
        self.items = items
        self.sender = sender
        self.size_bytes = sum(map(len, items))
        self.done: asyncio.Future[list[EventResult]] = asyncio.get_running_loop().create_future()


class EventDoor:
    """Takes bodies of events and answers after the commit.

    Requests that arrive while a transaction runs share the next one. Items are numbered across
    requests in the source's own offset row, so the store's guards hold here too; hence one door
    per store.
    """

    def __init__(
        self,
        sink: EventSink,
        *,
        max_event_bytes: int = MAX_EVENT_BYTES,
        max_batch: int = MAX_BATCH,
        max_waiting_bytes: int = 64 * 2**20,
    ) -> None:
        self._sink = sink
        self._max_event_bytes = max_event_bytes
        self._max_batch = max_batch
        self._max_waiting_bytes = max_waiting_bytes
        self._waiting: deque[_Request] = deque()
        self._waiting_bytes = 0
        self._turn = asyncio.Lock()
        self._next: int | None = None  # None: ask the store
        self.meter = Meter()

    async def accept(
        self, body: bytes, content_type: str, principal: Principal
    ) -> list[EventResult]:
        """Store a body and say what became of each event.

        It is JSON (one event, a list of them, or a batch) or NDJSON (one or a batch a line). Safe
        to repeat: events already stored come back as duplicates.

        Raises:
            RefusedError: the principal may not send events.
            BodyTooLargeError, DoorBusyError: see there.
            StoreError: nothing of the body is stored; repeat it later.
        """
        request = self._admit(body, content_type, principal)
        try:
            async with self._turn:
                if not request.done.done():
                    await _uninterrupted(self._commit_group())
        finally:
            self._leave(request)
        return request.done.result()

    def _admit(self, body: bytes, content_type: str, principal: Principal) -> _Request:
        if not (principal.may("events") or principal.may("control")):
            raise RefusedError("token", "it may not send events", "Use one with scope `events`")
        if self._waiting_bytes + len(body) > self._max_waiting_bytes:
            raise DoorBusyError("store", "too many events wait to be stored", "Try again later")
        request = _Request(_items(body, content_type, self._max_batch), _sender(principal))
        events = sum(map(count_events, request.items))
        if events > self._max_batch:
            raise BodyTooLargeError(
                "body", f"{events} events, at most {self._max_batch}", "Send it in parts"
            )
        self._waiting.append(request)
        self._waiting_bytes += request.size_bytes
        return request

    def _leave(self, request: _Request) -> None:
        self._waiting_bytes -= request.size_bytes
        if request in self._waiting:  # given up before its turn
            self._waiting.remove(request)

    async def _commit_group(self) -> None:
        group = list(self._take_group())
        try:
            results = await self._store(group)
        except Exception as error:
            self._next = None
            for request in group:
                request.done.set_exception(error)
                request.done.exception()  # seen: a caller that gave up shall not cause a warning
            raise
        else:
            for request, result in zip(group, results, strict=True):
                request.done.set_result(result)

    def _take_group(self) -> Iterator[_Request]:
        size_bytes = 0
        while self._waiting and size_bytes < _GROUP_BYTES:
            request = self._waiting.popleft()
            size_bytes += request.size_bytes
            yield request

    async def _store(self, group: list[_Request]) -> list[list[EventResult]]:
        start = await self._next_position()
        records = list(_records(group, start, self._max_event_bytes))
        span = Span(HTTP_PARTITION, start, start + len(records))
        if sum(request.size_bytes for request in group) > _THREAD_BYTES:
            decoded = await asyncio.to_thread(decode, records, source=HTTP, spans=[span])
        else:
            decoded = decode(records, source=HTTP, spans=[span])
        began_s = time.perf_counter()
        written = await self._sink.write(decoded)
        self.meter.note(decoded, time.perf_counter() - began_s)
        if written.fenced:
            raise StoreError(
                "store",
                "another door numbers events in this store, so some were not stored",
                "Run one daemon per store and send the events again",
            )
        self._next = span.end
        sizes = [len(request.items) for request in group]
        return list(outcomes(sizes, start, decoded, written))

    async def _next_position(self) -> int:
        if self._next is None:
            await self._sink.pin(HTTP, {HTTP_PARTITION: LogRange(None, 0, 0)})
            self._next = (await self._sink.offsets(HTTP))[HTTP_PARTITION].next_offset
        return self._next


async def _uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Finish the work even where the caller is cancelled: a commit decides for others too."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()


def _items(body: bytes, content_type: str, most: int) -> list[bytes]:
    """The body's parts. What cannot be taken apart is one part, and will be a dead letter.

    Raises:
        BodyTooLargeError: many more than `most`; told before they are all in memory.
    """
    if "ndjson" in content_type or "jsonl" in content_type or "json-seq" in content_type:
        if max(body.count(b"\n"), body.count(b"\r")) > most:
            raise BodyTooLargeError("body", f"more than {most} lines", "Send it in parts")
        return [line for line in body.splitlines() if line.strip()]
    if not body.lstrip().startswith(b"["):
        return [body]
    try:
        return [bytes(part) for part in array_parts(body, most)]
    except UnreadableError as error:
        raise BodyTooLargeError("body", error.detail, "Send it in parts") from error
    except (msgspec.DecodeError, ValueError, RecursionError):
        return [body]


def _sender(principal: Principal) -> Sender:
    if principal.may("control"):
        return SIGNED
    return Sender(
        trusted=False,
        principal=principal.id,
        sources=principal.sources,
        models=principal.models,
        stamps_tenant=True,
        tenant=principal.tenant,
    )


def _records(group: list[_Request], start: int, max_event_bytes: int) -> Iterator[Record]:
    position = start
    for request in group:
        for item in request.items:
            fits = len(item) <= max_event_bytes
            sender = request.sender if fits else _too_large(item, max_event_bytes)
            yield Record(item, HTTP_PARTITION.topic, HTTP_PARTITION.number, position, sender, None)
            position += 1


def _too_large(item: bytes, max_event_bytes: int) -> UnreadableError:
    return UnreadableError("too_large", f"{len(item)} bytes, at most {max_event_bytes}")
