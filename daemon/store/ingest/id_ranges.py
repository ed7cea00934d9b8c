"""Which ids the newest transactions brought, so that few of them are searched for duplicates. Pure.

The store's zone maps know the first eight characters of an id: of a UUIDv7, the minute. Within it
every row would be read in every transaction (25 ns each). Ids that mostly grow make it the rows of
the last few; random ones overlap with all, and nothing is gained.
"""

from collections import deque
from datetime import datetime
from typing import NamedTuple


class _Brought(NamedTuple):
    at: datetime  # `ingested_at` of its rows
    low: str
    high: str


class Search(NamedTuple):
    """A stored row may have one of the ids if it is older than `known`, or not before `first`."""

    known: datetime
    first: datetime


class IdRanges:
    """Of one table. Every transaction that adds rows to it must be told of, in order."""

    def __init__(self, most: int = 2_000) -> None:
        """The ranges of so many transactions are kept."""
        self._brought: deque[_Brought] = deque(maxlen=most)

    def search(self, low: str, high: str, *, now: datetime) -> Search:
        """Where ids from `low` to `high` may be found. `now`: later than every row stored."""
        known = self._brought[0].at if self._brought else now
        overlapping = (each.at for each in self._brought if each.low <= high and low <= each.high)
        return Search(known, next(overlapping, now))

    def add(self, low: str, high: str, *, at: datetime) -> None:
        """Rows with these ids are about to be stored; it does no harm if they are not."""
        self._brought.append(_Brought(at, low, high))
