"""The ids that the newest transactions brought, so that few of them are searched for duplicates.

The store's zone maps know the first eight characters of an id: of a UUIDv7, the minute. Without
these ranges every transaction would read every row of the minute (25 ns each). Ids that mostly grow
reduce that to the rows of the last few transactions; random ids overlap with all, and nothing is
gained. Stands alone as a pure core.
"""

from collections import deque
from datetime import datetime
from typing import NamedTuple


class _Brought(NamedTuple):
    at: datetime  # `ingested_at` of its rows
    low: str
    high: str


class Search(NamedTuple):
    """Only rows older than `known`, or not before `first`, can have one of the ids."""

    known: datetime
    first: datetime


class IdRanges:
    """The id ranges of one table. Report every transaction that adds rows to it, in order."""

    def __init__(self, most: int = 2_000) -> None:
        """`most`: the number of transactions whose ranges are kept."""
        self._brought: deque[_Brought] = deque(maxlen=most)

    def search(self, low: str, high: str, *, now: datetime) -> Search:
        """Say where ids from `low` to `high` may be found. `now`: later than every row stored."""
        known = self._brought[0].at if self._brought else now
        overlapping = (each.at for each in self._brought if each.low <= high and low <= each.high)
        return Search(known, next(overlapping, now))

    def add(self, low: str, high: str, *, at: datetime) -> None:
        """Note that rows with these ids are about to be stored. A rollback does no harm."""
        self._brought.append(_Brought(at, low, high))
