"""Compressed batches as fetched: those that unpack to too much are taken out before they do.

A producer may send 1 MB that unpacks to gigabytes; brokers do not mind. Such a batch becomes one
record with the packed bytes and a header, which ends as a dead letter. Pure.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import lz4.frame
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from adaptd.daemon.wire.inflate import BROKEN, pieces

REFUSED_HEADER = "adaptd-refused-batch"
BATCH_BYTES = 32 << 20  # unpacked, of one batch
FETCH_BYTES = (
    48 << 20
)  # unpacked, of all batches of one answer for a partition; the rest comes again

# base offset, length, leader epoch, magic, crc, attributes, last offset delta, first and last
# timestamp, producer id and epoch, base sequence, records
_HEADER = struct.Struct(">qiibIhiqqqhii")
_BEFORE_LENGTH = 12  # bytes that the batch's length does not count
_CODEC, _TRANSACTIONAL = 0x07, 0x10
_GZIP, _SNAPPY, _LZ4, _ZSTD = 1, 2, 3, 4
_LARGEST_RATIO = {_GZIP: 1032, _LZ4: 255}  # of the formats; zstd has none
_XERIAL = b"\x82SNAPPY\x00"
_STEP_BYTES = 256 << 10


def bound_answer(response: Any) -> None:
    """The same for every partition of a fetch's response, whose last field are the batches."""
    response.topics = [
        (topic, [(*known, fetched and bounded(fetched)) for *known, fetched in partitions])
        for topic, partitions in response.topics
    ]


def error_codes(response: Any) -> set[int]:
    """What a fetch's response says of its partitions: their number, and then this."""
    return {code for _, partitions in response.topics for _, code, *_ in partitions}


def bounded(
    fetched: bytes, *, batch_bytes: int = BATCH_BYTES, all_bytes: int = FETCH_BYTES
) -> bytes:
    """What may be unpacked of a partition's answer: at least its first batch, whole batches only.

    Without compression, and in formats before Kafka 0.11, it is the answer itself.
    """
    kept: list[bytes] = []
    total = end = 0
    changed = False
    for start, end, codec in _batches(fetched):
        batch = fetched[start:end]
        if codec:
            size = _unpacked_bytes(batch[_HEADER.size :], codec, limit_bytes=batch_bytes)
            if size is None:
                batch, changed = _refused(batch), True
                size = len(batch)
            if kept and total + size > all_bytes:
                return b"".join(kept)
            total += size
        kept.append(batch)
    if not changed:
        return fetched
    return b"".join([*kept, fetched[end:]])


def _batches(fetched: bytes) -> Iterator[tuple[int, int, int]]:
    """Start, end and codec of every whole batch; ends where it is not of this format."""
    start = 0
    while start + _HEADER.size <= len(fetched):
        _, length, _, magic, _, attributes, *_ = _HEADER.unpack_from(fetched, start)
        end = start + _BEFORE_LENGTH + length
        if magic != 2 or end > len(fetched) or end <= start:
            return
        yield start, end, attributes & _CODEC
        start = end


def _unpacked_bytes(packed: bytes, codec: int, *, limit_bytes: int) -> int | None:
    """How much it unpacks to, at the most; None where that is too much, or it does not unpack."""
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
    """Each block says its size first, and the library allocates that much."""
    if not packed.startswith(_XERIAL):
        yield _varint(packed)
        return
    at = 16
    while at < len(packed):
        (length,) = struct.unpack_from(">i", packed, at)
        if length <= 0:
            raise ValueError("an empty block")
        yield _varint(packed[at + 4 : at + 9])
        at += 4 + length


def _varint(start: bytes) -> int:
    value = 0
    for index, byte in enumerate(start[:5]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value
    raise ValueError("no length")


def _refused(batch: bytes) -> bytes:
    """A batch of one record in its place: last offset, time and transaction stay."""
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
