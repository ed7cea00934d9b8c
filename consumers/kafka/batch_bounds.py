"""Bounds for compressed batches: those that unpack to too much are replaced before they do.

A producer may send 1 MB that unpacks to gigabytes, and brokers accept it. Such a batch becomes one
record with the packed bytes and the header REFUSED_HEADER, which ends as a dead letter. Pure.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import lz4.frame
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from adaptd.consumers.decoding.records import REFUSED_HEADER
from adaptd.daemon.wire.inflate import BROKEN, pieces

BATCH_BYTES = 32 << 20  # unpacked, of one batch
# Unpacked, of all batches in one answer for a partition. The rest is fetched again.
FETCH_BYTES = 48 << 20

# base offset, length, leader epoch, magic, crc, attributes, last offset delta, first and last
# timestamp, producer id and epoch, base sequence, records
_HEADER = struct.Struct(">qiibIhiqqqhii")
_BEFORE_LENGTH = 12  # bytes that the length in the header does not count
_CODEC, _TRANSACTIONAL = 0x07, 0x10
_GZIP, _SNAPPY, _LZ4, _ZSTD = 1, 2, 3, 4
_LARGEST_RATIO = {_GZIP: 1032, _LZ4: 255}  # of the format; zstd has no largest one
_XERIAL = b"\x82SNAPPY\x00"
_STEP_BYTES = 256 << 10


def bound_response(response: Any) -> None:
    """Bound the batches of every partition in a fetch's response, in place."""
    # The batches are the last field of a partition, in every version of the response.
    response.topics = [
        (topic, [(*known, fetched and bound_batches(fetched)) for *known, fetched in partitions])
        for topic, partitions in response.topics
    ]


def error_codes(response: Any) -> set[int]:
    """Return the error codes of all partitions in a fetch's response."""
    return {code for _, partitions in response.topics for _, code, *_ in partitions}


def bound_batches(
    fetched: bytes, *, batch_bytes: int = BATCH_BYTES, all_bytes: int = FETCH_BYTES
) -> bytes:
    """Return the part of a partition's answer that may be unpacked, as whole batches.

    At least the first batch is in it. Uncompressed batches, and formats before Kafka 0.11, are
    returned unchanged.
    """
    kept: list[bytes] = []
    total = end = 0
    changed = False
    for start, end, codec in _find_batches(fetched):
        batch = fetched[start:end]
        if codec:
            size = _measure_unpacked(batch[_HEADER.size :], codec, limit_bytes=batch_bytes)
            if size is None:
                batch, changed = _replace_batch(batch), True
                size = len(batch)
            if kept and total + size > all_bytes:
                return b"".join(kept)
            total += size
        kept.append(batch)
    if not changed:
        return fetched
    return b"".join([*kept, fetched[end:]])


def _find_batches(fetched: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield start, end and codec of every whole batch, up to the first of another format."""
    start = 0
    while start + _HEADER.size <= len(fetched):
        _, length, _, magic, _, attributes, *_ = _HEADER.unpack_from(fetched, start)
        end = start + _BEFORE_LENGTH + length
        if magic != 2 or end > len(fetched) or end <= start:
            return
        yield start, end, attributes & _CODEC
        start = end


def _measure_unpacked(packed: bytes, codec: int, *, limit_bytes: int) -> int | None:
    """Return an upper bound of the unpacked size; None: too much, or it does not unpack."""
    # Many batches are cleared by the largest ratio of their format alone, without unpacking.
    most = len(packed) * _LARGEST_RATIO.get(codec, limit_bytes)
    if most <= limit_bytes:
        return most
    total = 0
    try:
        for size in _SIZES[codec](packed):
            total += size
            if total > limit_bytes:
                return None
    except _BROKEN:
        return None
    return total


def _lz4_sizes(packed: bytes) -> Iterator[int]:
    stream = lz4.frame.LZ4FrameDecompressor()
    yield len(stream.decompress(packed, _STEP_BYTES))
    while not stream.eof:
        part = stream.decompress(b"", _STEP_BYTES)
        if not part:
            raise EOFError("it ends too early")
        yield len(part)


def _snappy_sizes(packed: bytes) -> Iterator[int]:
    # Each block opens with its size, and the library allocates that much: the size alone tells.
    if not packed.startswith(_XERIAL):
        yield _read_varint(packed)
        return
    at = 16
    while at < len(packed):
        (length,) = struct.unpack_from(">i", packed, at)
        if length <= 0:
            raise ValueError("an empty block")
        yield _read_varint(packed[at + 4 : at + 9])
        at += 4 + length


def _read_varint(start: bytes) -> int:
    value = 0
    for index, byte in enumerate(start[:5]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value
    raise ValueError("no length")


def _replace_batch(batch: bytes) -> bytes:
    """Make a batch of one record with the same last offset, time and transaction."""
    base, _, _, _, _, attributes, last, time_ms, _, producer, epoch, _, records = (
        _HEADER.unpack_from(batch)
    )
    why = f"{records} records, offsets {base} to {base + last}, packed in {len(batch)} bytes"
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=attributes & _TRANSACTIONAL,
        producer_id=producer,
        producer_epoch=epoch,
        base_sequence=-1,
        batch_size=len(batch) + 1_000,
    )
    headers: list[tuple[str, bytes | None]] = [(REFUSED_HEADER, why.encode())]
    assert builder.append(last, max(0, time_ms), None, batch, headers) is not None
    made = bytearray(builder.build())
    struct.pack_into(">q", made, 0, base)  # not part of the checksum
    return bytes(made)


_BROKEN = (*BROKEN, RuntimeError, ValueError, struct.error)  # RuntimeError: lz4's
_SIZES: dict[int, Callable[[bytes], Iterator[int]]] = {
    _GZIP: lambda packed: map(len, pieces(packed, "gzip")),
    _SNAPPY: _snappy_sizes,
    _LZ4: _lz4_sizes,
    _ZSTD: lambda packed: map(len, pieces(packed, "zstd")),
}
