"""The way back: an ASGI `send` that masks vLLM's answer and notes it in the exchange."""

import time

from adaptd.serving.capture.exchange import Exchange, Fields
from adaptd.serving.gateway.allowlist import RESPONSE_HEADERS
from adaptd.serving.gateway.asgi import Headers, Message, Send, with_headers
from adaptd.serving.gateway.rewrite import (
    EventSplitter,
    Mask,
    data_of,
    decode_fields,
    is_set,
    with_data,
)


class MaskedAnswer:
    """The answer to one attempt.

    A stream passes event by event. Anything else is sent once it is whole, because masking changes
    its length. A 404 is held back and sets `missing`: the host does not have the version.
    """

    def __init__(self, send: Send, exchange: Exchange, mask: Mask) -> None:
        self._send = send
        self._exchange = exchange
        self._mask = mask
        self._start: Message | None = None
        self._held: list[bytes] = []
        self._events: EventSplitter | None = None
        self.started = False
        self.missing = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._take_start(message)
        elif message["type"] == "http.response.body" and not self.missing:
            await self._take_body(
                message.get("body", b""), last=not message.get("more_body", False)
            )

    async def _take_start(self, message: Message) -> None:
        self.missing = message["status"] == 404
        if self.missing:
            return
        self._start = message
        self._exchange.status_code = message["status"]
        if _content_type(message).startswith(b"text/event-stream"):
            self._events = EventSplitter()
            self._exchange.streamed = True
            await self._send_start(message, [])

    async def _take_body(self, body: bytes, *, last: bool) -> None:
        exchange = self._exchange
        if body and exchange.first_byte is None:
            exchange.first_byte = time.monotonic()
        if last:
            exchange.ended = time.monotonic()
        if self._events is not None:
            out = b"".join(self._mask_event(event) for event in self._events.feed(body, last=last))
        else:
            self._held.append(body)
            if not last:
                return
            out = self._mask_body(b"".join(self._held))
            assert self._start is not None, "ASGI: a body came before its start"
            await self._send_start(self._start, [(b"content-length", str(len(out)).encode())])
        if last:
            exchange.complete = not exchange.disconnected
        if out or last:
            await self._send({"type": "http.response.body", "body": out, "more_body": not last})

    async def _send_start(self, message: Message, extra: Headers) -> None:
        self.started = True
        headers = with_headers(message.get("headers", []), RESPONSE_HEADERS, extra)
        headers += identity_headers(self._exchange.id)
        await self._send(
            {"type": "http.response.start", "status": message["status"], "headers": headers}
        )

    def _mask_body(self, body: bytes) -> bytes:
        fields = decode_fields(body)
        if fields is None:
            return self._mask.words(body)
        self._note_usage(fields)
        masked = self._mask.document(fields)
        self._exchange.note_answer(masked)
        return masked

    def _mask_event(self, event: bytes) -> bytes:
        data = data_of(event)
        fields = None if data is None else decode_fields(data)
        if fields is None:  # a comment, or `[DONE]`
            return self._mask.words(event) + b"\n\n"
        self._note_usage(fields)
        self._exchange.failed = self._exchange.failed or is_set(fields, "error")
        masked = self._mask.chunk(fields)
        if masked is None:
            return b""
        self._exchange.note_answer(masked)
        return with_data(event, masked)

    def _note_usage(self, fields: Fields) -> None:
        if is_set(fields, "usage"):
            self._exchange.usage = bytes(fields["usage"])


def identity_headers(response_id: str) -> Headers:
    """Headers with the id to give feedback on, for clients that have no body to read it from."""
    value = response_id.encode()
    return [(b"x-adaptd-interaction", value), (b"x-request-id", value)]


def _content_type(message: Message) -> bytes:
    return next((v for k, v in message.get("headers", []) if k.lower() == b"content-type"), b"")
