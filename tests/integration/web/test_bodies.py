"""Bodies are read within bounds, each and all together."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Request

from adaptd.daemon.web.bodies import Bodies
from adaptd.daemon.wire.errors import BusyError, TooLargeError, TooSlowError


def a_request(*chunks: bytes, hold: asyncio.Event | None = None, **headers: str) -> Request:
    """A POST whose chunks come one by one; after the last but one it waits for `hold`."""
    parts = list(chunks)

    async def receive() -> dict[str, Any]:
        if len(parts) == 1 and hold is not None:
            await hold.wait()
        body = parts.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(parts)}

    names = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": names}, receive)


async def read(bodies: Bodies, request: Request) -> bytes:
    async with bodies.read(request) as body:
        return body


@pytest.fixture
async def bodies() -> AsyncIterator[Bodies]:
    made = Bodies(max_body_bytes=1000, max_held_bytes=2500, limit_s=0.05)
    yield made
    assert made._held_bytes == 0


async def test_a_body_is_refused_as_soon_as_it_is_too_large(bodies: Bodies) -> None:
    assert await read(bodies, a_request(b"a" * 600, b"b" * 400)) == b"a" * 600 + b"b" * 400
    with pytest.raises(TooLargeError):
        await read(bodies, a_request(b"a" * 600, b"b" * 401, b""))
    with pytest.raises(TooLargeError):
        await read(bodies, a_request(content_length="1001"))


async def test_all_bodies_together_are_bounded(bodies: Bodies) -> None:
    async with bodies.read(a_request(b"a" * 1000)), bodies.read(a_request(b"b" * 1000)):
        with pytest.raises(BusyError):
            await read(bodies, a_request(b"c" * 501))
        assert await read(bodies, a_request(b"c" * 500)) == b"c" * 500


async def test_what_is_unpacked_counts_too(bodies: Bodies) -> None:
    packed = gzip.compress(b"a" * 1000)
    async with bodies.read(a_request(packed, content_encoding="gzip")) as body:
        assert body == b"a" * 1000
        assert bodies._held_bytes == 1000
    with pytest.raises(TooLargeError, match="once unpacked"):
        await read(bodies, a_request(gzip.compress(b"a" * 1001), content_encoding="gzip"))


async def test_a_body_that_does_not_arrive_is_given_up(bodies: Bodies) -> None:
    with pytest.raises(TooSlowError):
        await read(bodies, a_request(b"a", b"b", hold=asyncio.Event()))
