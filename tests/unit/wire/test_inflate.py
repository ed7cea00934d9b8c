"""Unpacked content is the same, whole, and never above the limit."""

import gzip
import random
import tracemalloc

import pytest
import zstandard

from adaptd.daemon.wire.errors import MalformedError, TooLargeError
from adaptd.daemon.wire.inflate import inflate

LIMIT = 4 << 20
PACK = {"gzip": gzip.compress, "zstd": zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("encoding", PACK)
@pytest.mark.parametrize(
    "body", [b"", b"{}", b"text " * 100_000, random.Random(7).randbytes(300_000)]
)
def test_what_was_packed_comes_out(encoding: str, body: bytes) -> None:
    packed = PACK[encoding](body)
    assert inflate(packed, encoding, limit_bytes=LIMIT) == body
    assert inflate(packed + packed, encoding, limit_bytes=LIMIT) == body + body


@pytest.mark.parametrize("encoding", PACK)
def test_what_is_cut_or_broken_is_malformed(encoding: str) -> None:
    packed = PACK[encoding](b"text " * 1000)
    for broken in (packed[:-1], packed[:20], b"{}" + packed, packed + b"more"):
        with pytest.raises(MalformedError):
            inflate(broken, encoding, limit_bytes=LIMIT)


@pytest.mark.parametrize("encoding", PACK)
def test_of_many_streams_in_one_only_so_many_are_read(encoding: str) -> None:
    """Each takes its time, and empty ones are a few bytes."""
    one = PACK[encoding](b"x")
    assert inflate(one * 4_096, encoding, limit_bytes=LIMIT) == b"x" * 4_096
    for many in (one * 4_097, PACK[encoding](b"") * 50_000):
        with pytest.raises(MalformedError, match="streams in one"):
            inflate(many, encoding, limit_bytes=LIMIT)


@pytest.mark.parametrize("encoding", PACK)
def test_a_bomb_is_given_up_before_it_goes_off(encoding: str) -> None:
    packed = PACK[encoding](b"\0" * (256 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            inflate(packed, encoding, limit_bytes=LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
