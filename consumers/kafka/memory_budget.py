"""The memory budget: how many fetched bytes may wait to be stored. One record may have 5 MB."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Protocol, TypeVar

# While a chunk is stored its bytes are in memory several times: fetched, decoded, as Arrow, in the
# transaction. These three limits keep the process well under 1 GiB.
CHUNK_BYTES = 4 << 20
TRANSACTION_BYTES = 16 << 20
WAITING_BYTES = 48 << 20
RECORD_BYTES = 400  # of a record without key, value and headers
EMPTY_CHUNK_BYTES = 2_000  # of the objects around the records of a chunk
_HEADER_BYTES = 150


class _HasSize(Protocol):
    @property
    def size_bytes(self) -> int: ...


Sized = TypeVar("Sized", bound=_HasSize)
# aiokafka says -1 where there is no value or no key.
_value_size = attrgetter("serialized_value_size")
_key_size = attrgetter("serialized_key_size")
_headers = attrgetter("headers")


class MemoryBudget:
    """Bytes handed over and not stored yet. For use on one event loop only.

    Bytes are given back in the order in which they were taken. An epoch lasts from one seek to the
    next. Some bytes of a past epoch may never be given back, since a rebalance drops what waits.
    """

    def __init__(self, limit_bytes: int = WAITING_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self.epoch = 0
        self._used_bytes = {self.epoch: 0}  # by epoch
        self._freed = asyncio.Event()

    @property
    def used_bytes(self) -> int:
        return sum(self._used_bytes.values())

    def begin(self) -> None:
        """Start an epoch. Bytes of earlier ones may still wait, or may have been dropped.

        They count until they are given back, or until something taken later is.
        """
        self.epoch += 1
        self._used_bytes[self.epoch] = 0
        self._freed.set()

    def has_room(self, size_bytes: int) -> bool:
        """Return True where so many bytes may be handed over now.

        One chunk of this epoch always may, however large, and whatever waits from earlier epochs.
        """
        # Without this a large chunk would never be read. Nor would it ever come out that the bytes
        # of earlier epochs were dropped: only a chunk given back tells.
        alone = self._used_bytes[self.epoch] == 0
        return alone or self.used_bytes + size_bytes <= self._limit_bytes

    def take(self, size_bytes: int) -> None:
        self._used_bytes[self.epoch] += size_bytes

    def give(self, size_bytes: int, *, epoch: int) -> None:
        """Give bytes back to the epoch in which they were taken. Clears earlier epochs."""
        # Bytes come back in order, so what remains of earlier epochs was dropped.
        for over in [before for before in self._used_bytes if before < epoch]:
            del self._used_bytes[over]
        if epoch in self._used_bytes:
            self._used_bytes[epoch] -= size_bytes
            self._freed.set()

    async def wait(self, limit_s: float) -> None:
        """Wait until something is given back, `limit_s` at most."""
        self._freed.clear()
        try:
            async with asyncio.timeout(limit_s):
                await self._freed.wait()
        except TimeoutError:
            pass


def split_by_bytes(
    records: Sequence[Any], *, limit_bytes: int = CHUNK_BYTES
) -> Iterator[tuple[Sequence[Any], int]]:
    """Cut the records, in order, into parts of at most `limit_bytes`; yield each with its bytes."""
    total = count_bytes(records)
    if total <= limit_bytes:
        yield records, total
        return
    start = size = 0
    for index, record in enumerate(records):
        more = count_bytes([record])
        if index > start and size + more > limit_bytes:
            yield records[start:index], size
            start, size = index, 0
        size += more
    yield records[start:], size


def group_by_bytes(
    chunks: Iterable[Sized], *, limit_bytes: int = TRANSACTION_BYTES
) -> Iterator[list[Sized]]:
    """Group the chunks, in order, into lists of at most so many bytes, and of at least one."""
    taken: list[Sized] = []
    size = 0
    for chunk in chunks:
        if taken and size + chunk.size_bytes > limit_bytes:
            yield taken
            taken, size = [], 0
        taken.append(chunk)
        size += chunk.size_bytes
    if taken:
        yield taken


def count_bytes(records: Sequence[Any]) -> int:
    """Estimate the memory that records take: values, keys and headers."""
    # A sender chooses all three, so each must count.
    size = sum(map(_value_size, records)) + sum(map(_key_size, records))
    for headers in filter(None, map(_headers, records)):
        size += sum(len(name) + len(value or b"") + _HEADER_BYTES for name, value in headers)
    return size + RECORD_BYTES * len(records)
