"""Bodies of events: read, unpacked and held within bounds, whoever sends how many at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from adaptd.daemon.wire.errors import BusyError, TooLargeError, TooSlowError, UnknownEncodingError
from adaptd.daemon.wire.inflate import ENCODINGS, inflate

_THREAD_BYTES = 64 << 10  # above this, unpacking leaves the event loop
_LIMIT_S = 60.0  # for a body to arrive


class Bodies:
    """Reads request bodies. All that are being read or worked on share `max_held_bytes`.

    `max_body_bytes` holds for a body as sent and as unpacked.
    """

    def __init__(
        self, *, max_body_bytes: int, max_held_bytes: int, limit_s: float = _LIMIT_S
    ) -> None:
        self._max_body_bytes = max_body_bytes
        self._max_held_bytes = max_held_bytes
        self._limit_s = limit_s
        self._held_bytes = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The unpacked body; it counts as held until the block is left.

        Raises:
            TooLargeError, MalformedError, UnknownEncodingError, TooSlowError: see there.
            BusyError: too much is held already.
        """
        encoding = _read_encoding(request)
        share = _Share(self)
        try:
            body = await self._receive_body(request, share)
            if encoding is not None:
                body = await self._unpack_body(body, encoding, share)
            yield body
        finally:
            share.end()

    def hold(self, size_bytes: int) -> None:
        """Raises BusyError where that would be too much together."""
        if self._held_bytes + size_bytes > self._max_held_bytes:
            raise BusyError("body", "too many events are being taken in", "Send it again later")
        self._held_bytes += size_bytes

    def let_go(self, size_bytes: int) -> None:
        self._held_bytes -= size_bytes

    async def _receive_body(self, request: Request, share: "_Share") -> bytes:
        self._check_announced(request)
        body = bytearray()
        try:
            async with asyncio.timeout(self._limit_s):
                async for chunk in request.stream():
                    share.grow(len(chunk))
                    body += chunk
                    if len(body) > self._max_body_bytes:
                        raise self._too_large()
        except TimeoutError as error:
            problem = f"it did not arrive within {self._limit_s:.0f} s"
            raise TooSlowError("body", problem, "Send it in parts") from error
        return bytes(body)

    def _check_announced(self, request: Request) -> None:
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_body_bytes:
            raise self._too_large()

    async def _unpack_body(self, body: bytes, encoding: str, share: "_Share") -> bytes:
        share.grow(self._max_body_bytes)  # what it may come to is known only afterwards
        if len(body) > _THREAD_BYTES:
            found = await asyncio.to_thread(
                inflate, body, encoding, limit_bytes=self._max_body_bytes
            )
        else:
            found = inflate(body, encoding, limit_bytes=self._max_body_bytes)
        share.shrink(len(body) + self._max_body_bytes - len(found))
        return found

    def _too_large(self) -> TooLargeError:
        return TooLargeError("body", f"more than {self._max_body_bytes} bytes", "Send it in parts")


class _Share:
    """Bytes that one request holds."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._size_bytes = 0

    def grow(self, size_bytes: int) -> None:
        self._bodies.hold(size_bytes)
        self._size_bytes += size_bytes

    def shrink(self, size_bytes: int) -> None:
        self._bodies.let_go(size_bytes)
        self._size_bytes -= size_bytes

    def end(self) -> None:
        self.shrink(self._size_bytes)


def _read_encoding(request: Request) -> str | None:
    """Raises UnknownEncodingError for anything but one of those we take."""
    given = request.headers.get("content-encoding", "").strip().lower()
    if given in ("", "identity"):
        return None
    if given not in ENCODINGS:
        problem = f"content-encoding {given[:50]!r} is not taken"
        raise UnknownEncodingError("body", problem, f"Use one of {', '.join(ENCODINGS)}, or none")
    return given
