"""The HTTP door: stores a body of events, answers for each event. The web layer mounts it."""

import asyncio
import time
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Literal

import msgspec
import pyarrow as pa

from adaptd.consumers.decoding.decode import SIGNED, Record, Sender, decode
from adaptd.consumers.decoding.json_events import (
    MAX_BATCH,
    MAX_EVENT_BYTES,
    UnreadableError,
    array_parts,
    count_events,
)
from adaptd.daemon.domain.ingest import (
    ADDRESS_COLUMNS,
    HTTP,
    HTTP_PARTITION,
    Address,
    Decoded,
    LogRange,
    Span,
    Written,
)
from adaptd.daemon.domain.meters import Meter
from adaptd.daemon.domain.ports import EventSink
from adaptd.daemon.wire.errors import BusyError, RefusedError, StoreError, TooLargeError
from adaptd.daemon.wire.tokens import Principal

_GROUP_BYTES = 8 * 2**20  # of one transaction
_THREAD_BYTES = 64 * 2**10  # above this, decoding (about 20 µs an event) leaves the event loop


class BodyTooLargeError(TooLargeError):
    """Answer 413: split the body."""


class DoorBusyError(BusyError):
    """Answer 429 with Retry-After: the store is behind."""


class EventResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The outcome of one event. `item` counts the body's lines or list items, `index` its batch.

    A duplicate was stored before and is no error. `id` is absent where it could not be read.
    """

    item: int
    index: int = 0
    result: Literal["stored", "duplicate", "dead_letter"]
    id: str | None = None
    reason: str | None = None
    detail: str | None = None


class _Request:
    """A body that waits for its transaction."""

    def __init__(self, items: list[bytes], sender: Sender) -> None:
        self.items = items
        self.sender = sender
        self.size_bytes = sum(map(len, items))
        self.done: asyncio.Future[list[EventResult]] = asyncio.get_running_loop().create_future()


class EventDoor:
    """Takes bodies of events and answers after the commit.

    Requests that arrive while a transaction runs share the next one. Items are numbered across
    requests in the source's own offset row, so the store's guards hold here too. Therefore each
    store has one door.
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
        """Store a body and return the outcome of each event.

        The body is JSON (an event, a list of events, or a batch) or NDJSON (an event or a batch a
        line). Safe to repeat: events already stored come back as duplicates.

        1. Refuse a body that is not permitted, too large or too much for now (`_admit_request`).
        2. Wait for the transaction before. One waiting request then commits for all of them.
        3. Decode and write them in one transaction, and answer each request.

        Raises:
            RefusedError: the principal may not send events.
            BodyTooLargeError: the body has too many events.
            DoorBusyError: too many bytes wait to be stored.
            StoreError: nothing of the body is stored; repeat it later.
        """
        request = self._admit_request(body, content_type, principal)
        try:
            async with self._turn:
                if not request.done.done():
                    await _finish_uninterrupted(self._commit_group())
        finally:
            self._remove_request(request)
        return request.done.result()

    def _admit_request(self, body: bytes, content_type: str, principal: Principal) -> _Request:
        if not (principal.may("events") or principal.may("control")):
            raise RefusedError("token", "it may not send events", "Use one with scope `events`")
        if self._waiting_bytes + len(body) > self._max_waiting_bytes:
            raise DoorBusyError("store", "too many events wait to be stored", "Try again later")
        request = _Request(_split_body(body, content_type, self._max_batch), _sender_of(principal))
        events = sum(map(count_events, request.items))
        if events > self._max_batch:
            raise BodyTooLargeError(
                "body", f"{events} events, at most {self._max_batch}", "Send it in parts"
            )
        self._waiting.append(request)
        self._waiting_bytes += request.size_bytes
        return request

    def _remove_request(self, request: _Request) -> None:
        self._waiting_bytes -= request.size_bytes
        if request in self._waiting:  # the client gave up before its turn
            self._waiting.remove(request)

    async def _commit_group(self) -> None:
        group = list(self._take_group())
        try:
            results = await self._store_group(group)
        except Exception as error:
            self._next = None
            for request in group:
                request.done.set_exception(error)
                request.done.exception()  # mark as retrieved: the caller may have given up
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

    async def _store_group(self, group: list[_Request]) -> list[list[EventResult]]:
        start = await self._next_position()
        records = list(_make_records(group, start, self._max_event_bytes))
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
        return list(_list_results(sizes, start, decoded, written))

    async def _next_position(self) -> int:
        if self._next is None:
            await self._sink.pin(HTTP, {HTTP_PARTITION: LogRange(None, 0, 0)})
            self._next = (await self._sink.offsets(HTTP))[HTTP_PARTITION].next_offset
        return self._next


async def _finish_uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Finish the work even where the caller is cancelled: the commit is for other callers too."""
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


def _split_body(body: bytes, content_type: str, most: int) -> list[bytes]:
    """Split a body into its parts. What cannot be split is one part, and becomes a dead letter.

    Raises:
        BodyTooLargeError: there are many more than `most`. Raised before all are in memory.
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


def _sender_of(principal: Principal) -> Sender:
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


def _make_records(group: list[_Request], start: int, max_event_bytes: int) -> Iterator[Record]:
    position = start
    for request in group:
        for item in request.items:
            fits = len(item) <= max_event_bytes
            sender = request.sender if fits else _refuse_size(item, max_event_bytes)
            yield Record(item, HTTP_PARTITION.topic, HTTP_PARTITION.number, position, sender, None)
            position += 1


def _refuse_size(item: bytes, max_event_bytes: int) -> UnreadableError:
    return UnreadableError("too_large", f"{len(item)} bytes, at most {max_event_bytes}")


def _list_results(
    sizes: Sequence[int], start: int, decoded: Decoded, written: Written
) -> Iterator[list[EventResult]]:
    """List the results of each body, in the order of its events. The hot path of the door.

    `sizes` are the numbers of items of the bodies, which are numbered from `start` across them.
    """
    items = [item for size in sizes for item in range(size)]
    found: list[list[EventResult]] = [[] for _ in items]
    for table in (decoded.interactions, decoded.feedback):
        rows = zip(table["id"].to_pylist(), *_read_places(table), strict=True)
        for event_id, position, index in rows:
            stored = EventResult(
                item=items[position - start], index=index, result="stored", id=event_id
            )
            found[position - start].append(stored)
    letters = decoded.dead_letters
    reasons, details = letters["reason"].to_pylist(), letters["detail"].to_pylist()
    rows = zip(reasons, details, *_read_places(letters), strict=True)
    for reason, detail, position, index in rows:
        letter = EventResult(
            item=items[position - start],
            index=index,
            result="dead_letter",
            reason=reason,
            detail=detail,
        )
        found[position - start].append(letter)
    _correct_results(found, start, written)
    end = 0
    for size in sizes:
        begin, end = end, end + size
        yield [result for each in found[begin:end] for result in _sort_by_index(each)]


def _read_places(table: pa.Table) -> tuple[list[int], list[int]]:
    """Return position and index of every row. The rest of an address is the same for all."""
    position, index = ADDRESS_COLUMNS[2:]
    return table[position].to_numpy().tolist(), table[index].to_numpy().tolist()


def _correct_results(found: list[list[EventResult]], start: int, written: Written) -> None:
    # Not every event that could be read was stored: the store finds duplicates, erased people and
    # JSON that it refuses.
    changes: dict[tuple[int, int], dict[str, Any]] = {}
    kinds: list[tuple[frozenset[Address], dict[str, Any]]] = [
        (written.duplicates, {"result": "duplicate"}),
        (written.barred, {"result": "dead_letter", "id": None, "reason": "erased"}),
        (written.unstorable, {"result": "dead_letter", "reason": "unstorable"}),
    ]
    for addresses, change in kinds:
        changes |= dict.fromkeys(((at.position - start, at.index) for at in addresses), change)
    for item in {item for item, _ in changes}:
        found[item] = [
            msgspec.structs.replace(result, **changes.get((item, result.index), {}))
            for result in found[item]
        ]


def _sort_by_index(each: list[EventResult]) -> list[EventResult]:
    return each if len(each) == 1 else sorted(each, key=lambda result: result.index)
