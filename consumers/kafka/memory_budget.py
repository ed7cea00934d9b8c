"""How much of what was fetched may wait in memory, in bytes: a single record may have 5 MB."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Protocol, TypeVar

# A chunk's bytes are in memory several times while it is stored: as fetched, decoded, as Arrow, in
# the transaction. These three keep the process well under 1 GiB.
CHUNK_BYTES = 4 << 20
TRANSACTION_BYTES = 16 << 20
WAITING_BYTES = 48 << 20
RECORD_BYTES = 400  # of a record that holds nothing
EMPTY_CHUNK_BYTES = 2_000  # of what is around its records
_HEADER_BYTES = 150


class _HasSize(Protocol):
    @property
    def size_bytes(self) -> int: ...


Sized = TypeVar("Sized", bound=_HasSize)
# Sizes are -1 where there is none.
_value_size = attrgetter("serialized_value_size")
_key_size = attrgetter("serialized_key_size")
_headers = attrgetter("headers")


class Budget:
    """Bytes handed over and not stored yet. Used on one event loop only.

    They are given back in the order they were taken. An epoch is what was taken between two seeks:
    some of one that is over may never be given back, for a rebalance drops what waits.
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
        """Reading begins anew. What was handed over before may still wait, or have been dropped.

        It counts until it is given back, or something taken later is.
        """
        self.epoch += 1
        self._used_bytes[self.epoch] = 0
        self._freed.set()

    def has_room(self, size_bytes: int) -> bool:
        """One chunk of this epoch always has, however large, and whatever waits from before.

        Else it would never be read, and nothing would tell that what came before was dropped.
        """
        alone = self._used_bytes[self.epoch] == 0
        return alone or self.used_bytes + size_bytes <= self._limit_bytes

    def take(self, size_bytes: int) -> None:
        self._used_bytes[self.epoch] += size_bytes

    def give(self, size_bytes: int, *, epoch: int) -> None:
        """`epoch`: when it was taken. What remains of those before it was dropped."""
        for over in [before for before in self._used_bytes if before < epoch]:
            del self._used_bytes[over]
        if epoch in self._used_bytes:
            self._used_bytes[epoch] -= size_bytes
            self._freed.set()

    async def wait(self, limit_s: float) -> None:
        """Until something was given back, or `limit_s` passed."""
        self._freed.clear()
        try:
            async with asyncio.timeout(limit_s):
                await self._freed.wait()
        except TimeoutError:
            pass


def parts(
    records: Sequence[Any], *, limit_bytes: int = CHUNK_BYTES
) -> Iterator[tuple[Sequence[Any], int]]:
    """The records in order, cut where they come to more than `limit_bytes`, with their bytes."""
    total = size_bytes(records)
    if total <= limit_bytes:
        yield records, total
        return
    start = size = 0
    for index, record in enumerate(records):
        more = size_bytes([record])
        if index > start and size + more > limit_bytes:
            yield records[start:index], size
            start, size = index, 0
        size += more
    yield records[start:], size


def transactions(
    chunks: Iterable[Sized], *, limit_bytes: int = TRANSACTION_BYTES
) -> Iterator[list[Sized]]:
    """The chunks in order, in lists of at most so many bytes together, and of at least one."""
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


def size_bytes(records: Sequence[Any]) -> int:
    """About what they take in memory: values, keys and headers, for a sender chooses them all."""
    size = sum(map(_value_size, records)) + sum(map(_key_size, records))
    for headers in filter(None, map(_headers, records)):
        size += sum(len(name) + len(value or b"") + _HEADER_BYTES for name, value in headers)
    return size + RECORD_BYTES * len(records)
