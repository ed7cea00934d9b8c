"""ASGI as far as the gateway needs it: bodies, headers, answers."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from adaptd.daemon.wire.texts import encode_json
from adaptd.serving.gateway.refusals import RefusalError, too_large, too_slow

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class DisconnectedError(Exception):
    """The client left before its request was whole."""


def find_header(scope: Scope, name: bytes) -> str | None:
    """Return the first value of a header, `name` in lower case; None where there is none.

    UTF-8 is tried first: a value then equals the same text in a JSON body.
    """
    for key, value in scope["headers"]:
        if key == name:
            try:
                return value.decode()
            except UnicodeDecodeError:
                return value.decode("latin-1")
    return None


def bearer_token(scope: Scope) -> str | None:
    """Return the token of the Authorization header."""
    scheme, _, token = (find_header(scope, b"authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def with_headers(
    headers: Iterable[tuple[bytes, bytes]], allowed: frozenset[bytes], extra: Headers
) -> Headers:
    """Keep the allowed headers and append `extra`."""
    kept = [(name.lower(), value) for name, value in headers if name.lower() in allowed]
    return kept + extra


async def read_body(receive: Receive, *, limit_bytes: int, limit_s: float) -> bytes:
    """Read the whole body of a request.

    Raises:
        RefusalError: it is larger or slower than allowed.
        DisconnectedError: the client left.
    """
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limit_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise DisconnectedError
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limit_bytes:
                    raise too_large(limit_bytes)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError as error:
        raise too_slow(limit_s) from error


async def send_body(
    send: Send,
    status: int,
    body: bytes,
    *,
    headers: Headers | None = None,
    content_type: bytes = b"application/json",
) -> None:
    start = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send(
        {"type": "http.response.start", "status": status, "headers": start + (headers or [])}
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_json(
    send: Send, status: int, payload: Any, *, headers: Headers | None = None
) -> None:
    await send_body(send, status, encode_json(payload), headers=headers)


async def send_refusal(
    send: Send, refusal: RefusalError, *, headers: Headers | None = None
) -> None:
    await send_json(send, refusal.status, refusal.body, headers=refusal.headers + (headers or []))
