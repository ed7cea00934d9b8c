"""Decompression with a hard limit on what comes out: a few kB may hold gigabytes of nothing."""

import io
import zlib
from collections.abc import Iterator

import zstandard

from daemon.domain.errors import MalformedError, TooLargeError

_STEP_BYTES = 256 << 10  # gzip: at most this much comes out at once
_PIECE_BYTES = 1 << 10  # zstd: so much goes in at once; 4 bytes become 128 KiB at the worst
_GZIP_WINDOW = 31  # zlib: a gzip header is expected
_ZSTD_WINDOW_BYTES = 8 << 20  # a frame may ask for gigabytes; this is what RFC 8878 wants supported

ENCODINGS = ("gzip", "zstd")
BROKEN = (zlib.error, zstandard.ZstdError, EOFError)


def inflate(body: bytes, encoding: str, *, limit_bytes: int) -> bytes:
    """The content of a body, of one of `ENCODINGS`.

    Raises:
        TooLargeError: there is more than `limit_bytes` of it.
        MalformedError: it is no such stream, or ends too early.
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
    """The content part by part, a few MiB at the most at once. Raises one of `BROKEN`."""
    return _gzip_parts(body) if encoding == "gzip" else _zstd_parts(body)


def _gzip_parts(body: bytes) -> Iterator[bytes]:
    """One member after the other, as gzip allows."""
    rest = body
    while rest:
        stream = zlib.decompressobj(_GZIP_WINDOW)
        while not stream.eof:
            part = stream.decompress(rest, _STEP_BYTES)
            rest = stream.unconsumed_tail
            if not part and not rest and not stream.eof:
                raise EOFError("it ends too early")
            yield part
        rest = stream.unused_data


def _zstd_parts(body: bytes) -> Iterator[bytes]:
    """One frame after the other. zstandard itself takes a cut frame for the end of the stream."""
    rest = body
    while rest:
        stream = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()
        source = io.BytesIO(rest)
        while not stream.eof:
            piece = source.read(_PIECE_BYTES)
            if not piece:
                raise EOFError("it ends too early")
            yield stream.decompress(piece)
        rest = stream.unused_data + source.read()
