"""Decompression with a hard limit on the output: a few kB may hold gigabytes of nothing."""

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import zstandard

from adaptd.daemon.wire.errors import MalformedError, TooLargeError

_STEP_BYTES = 256 << 10  # gzip: output at once, at most
_GZIP_PIECE_BYTES = 64 << 10  # input at once
_ZSTD_PIECE_BYTES = 1 << 10  # input at once: 4 bytes become 128 KiB at the worst
# Empty members take 9 to 20 bytes and tens of µs each, so 1 MB of them would take seconds.
_MOST_MEMBERS = 4_096
_GZIP_WINDOW = 31  # zlib: a gzip header is expected
_ZSTD_WINDOW_BYTES = 8 << 20  # a frame may ask for gigabytes; RFC 8878 wants this much supported

ENCODINGS = ("gzip", "zstd")
_Make = Callable[[], Any]
_Take = Callable[[Any, memoryview], Iterator[bytes]]
BROKEN = (zlib.error, zstandard.ZstdError, EOFError)


def inflate(body: bytes, encoding: str, *, limit_bytes: int) -> bytes:
    """Decompress a body in one of `ENCODINGS`.

    Raises:
        TooLargeError: the content has more than `limit_bytes`.
        MalformedError: the body is no such stream, or ends too early.
    """
    out = bytearray()
    try:
        for part in pieces(body, encoding):
            out += part
            if len(out) > limit_bytes:
                raise TooLargeError(
                    "body", f"more than {limit_bytes} bytes once unpacked", "Send it in parts"
                )
    except BROKEN as error:
        raise MalformedError(
            "body", f"it is not the {encoding} it says it is ({error})", "Send it whole"
        ) from error
    return bytes(out)


def pieces(body: bytes, encoding: str) -> Iterator[bytes]:
    """Yield the content part by part, a few MiB at most at once. Raises one of `BROKEN`."""
    return _split_gzip(body) if encoding == "gzip" else _split_zstd(body)


def _split_gzip(body: bytes) -> Iterator[bytes]:
    def take(stream: Any, piece: memoryview | bytes) -> Iterator[bytes]:
        while True:
            part = stream.decompress(piece, _STEP_BYTES)
            yield part
            piece = stream.unconsumed_tail
            if stream.eof or (not piece and len(part) < _STEP_BYTES):  # else more may be inside
                return

    return _split_streams(body, lambda: zlib.decompressobj(_GZIP_WINDOW), take, _GZIP_PIECE_BYTES)


def _split_zstd(body: bytes) -> Iterator[bytes]:
    # One frame at a time, because zstandard itself takes a cut frame for the end of the stream.
    return _split_streams(
        body,
        lambda: zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj(),
        lambda stream, piece: iter((stream.decompress(piece),)),
        _ZSTD_PIECE_BYTES,
    )


def _split_streams(body: bytes, make: _Make, take: _Take, piece_bytes: int) -> Iterator[bytes]:
    """Yield the output of one gzip member or zstd frame after the other, each by its own stream."""
    view, at = memoryview(body), 0
    for _ in range(_MOST_MEMBERS):
        if at == len(view):
            return
        stream = make()
        while not stream.eof:
            piece = view[at : at + piece_bytes]
            if not piece:
                raise EOFError("it ends too early")
            at += len(piece)
            yield from take(stream, piece)
        at -= len(stream.unused_data)
    if at < len(view):
        raise EOFError(f"more than {_MOST_MEMBERS} streams in one")
