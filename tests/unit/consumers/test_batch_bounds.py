"""Batches that unpack to too much become one record; all others stay as they are."""

import gzip
import struct
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from adaptd.consumers.decoding.records import REFUSED_HEADER
from adaptd.consumers.kafka.batch_bounds import bound_batches, bound_response

CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
MIB = 1 << 20
ZSTD_EMPTY = zstandard.ZstdCompressor().compress(b"")
GZIP_EMPTY = gzip.compress(b"", mtime=0)  # a time of its own would be in the name of the test


def a_batch(base: int, *values: bytes, codec: int = 0, producer: int = -1) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, producer >= 0, producer, -1, -1, 1 << 30)
    for offset, value in enumerate(values):
        builder.append(offset, 1_793_534_400_000, b"key", value, [])
    made = bytearray(builder.build())
    struct.pack_into(">q", made, 0, base)
    return bytes(made)


def read(fetched: bytes) -> list[Any]:
    records, found = MemoryRecords(fetched), []
    while records.has_next():
        batch = records.next_batch()
        assert batch is not None
        assert batch.validate_crc()
        found.append((batch.next_offset, [record for record in batch]))  # noqa: C416 - list() finds none
    return found


@pytest.mark.parametrize("codec", [0, *CODECS.values()])
def test_usual_batches_stay_as_they_are(codec: int) -> None:
    fetched = a_batch(5, b"one", b"two", codec=codec) + a_batch(7, b"x" * 100_000, codec=codec)
    assert bound_batches(fetched) == fetched
    assert bound_batches(fetched + fetched[:50]) == fetched + fetched[:50], "the cut end stays too"
    assert bound_batches(b"") == b""


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())
def test_a_bomb_becomes_one_record_in_its_place(codec: int) -> None:
    bomb = a_batch(10, *[b"\0" * MIB] * 40, codec=codec, producer=7)
    fetched = a_batch(9, b"before") + bomb + a_batch(50, b"after", codec=codec)

    (_, [before]), (end, [letter]), (_, [after]) = read(bound_batches(fetched, batch_bytes=4 * MIB))

    assert (before.value, after.value) == (b"before", b"after")
    assert (letter.offset, end) == (49, 50)
    assert letter.value == bomb
    assert letter.timestamp == 1_793_534_400_000
    [(name, why)] = letter.headers
    assert name == REFUSED_HEADER
    assert why.decode().startswith("40 records, offsets 10 to 49, packed in ")


@pytest.mark.parametrize("codec", [1, 3, 4])  # brokers refuse such batches; snappy's cannot be told
def test_what_does_not_unpack_becomes_one_record_too(codec: int) -> None:
    sound = a_batch(0, b"one", b"two " * 100_000, codec=codec)
    broken = bytearray(sound)
    broken[61:] = bytes(len(sound) - 61)

    [(end, [letter])] = read(bound_batches(bytes(broken), batch_bytes=1000))

    assert (letter.offset, end) == (1, 2)
    assert letter.value == bytes(broken)


@pytest.mark.parametrize(("codec", "empty"), [(1, GZIP_EMPTY), (4, ZSTD_EMPTY)])
def test_thousands_of_empty_streams_before_a_record_are_not_gone_through(
    codec: int, empty: bytes
) -> None:
    """Each stream takes time on the thread that must answer the group."""
    sound = a_batch(0, b"one", codec=codec)
    slow = bytearray(sound[:61] + empty * 40_000 + sound[61:])
    struct.pack_into(">i", slow, 8, len(slow) - 12)

    [(_, [letter])] = read(bound_batches(bytes(slow)))

    assert letter.value == bytes(slow)


def test_an_answer_is_cut_where_all_of_it_would_be_too_much() -> None:
    batches = [a_batch(n, b"x" * MIB, codec=1) for n in range(5)]
    fetched = b"".join(batches)
    assert bound_batches(fetched, batch_bytes=2 * MIB, all_bytes=3 * MIB) == b"".join(batches[:2])
    assert bound_batches(fetched, batch_bytes=2 * MIB, all_bytes=100) == batches[0]


def test_every_partition_of_an_answer_is_bounded() -> None:
    bomb, sound = a_batch(0, b"\0" * 40 * MIB, codec=1), a_batch(1, b"sound")
    response = SimpleNamespace(
        topics=[("a", [(0, 0, 9, 9, [], bomb), (1, 0, 9, 9, [], sound)]), ("b", [(0, 3, 0, None)])]
    )
    bound_response(response)
    [(_, [first, second]), (_, [third])] = response.topics
    assert first[:-1] == (0, 0, 9, 9, [])
    assert read(first[-1])[0][1][0].value == bomb
    assert (second[-1], third) == (sound, (0, 3, 0, None))


def test_old_formats_are_left_alone() -> None:
    old = bytearray(a_batch(0, gzip.compress(b"x")))
    old[16] = 1
    assert bound_batches(bytes(old)) == bytes(old)
