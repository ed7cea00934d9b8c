"""Rows: events of one kind, with the records they came in, ready to become columns. Hot path."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from adaptd.consumers.decoding.records import Record
from adaptd.consumers.decoding.wire_types import NULL


class Rows:
    """Wire events in the order they came.

    `extra` holds the JSON of unknown fields, for the rows that have any. A settled row was parsed
    the slow way, so nothing about it is in doubt.
    """

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.records: list[Any] = []  # of Record, and each has a Sender
        self.indexes: list[int] = []  # within the batch message
        self.extra: dict[int, bytes] = {}
        self.settled: set[int] = set()
        self._values: dict[str, list[bytes | None]] = {}
        self._columns: dict[str, pa.Array] = {}
        self._micros: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.events)

    def add(self, event: Any, record: Record, index: int) -> None:
        self.events.append(event)
        self.records.append(record)
        self.indexes.append(index)

    def settle(self, row: int, event: Any, extra: bytes | None) -> None:
        """Replace a row with what the slow way read."""
        self.events[row] = event
        self.settled.add(row)
        self._values.clear()
        self._columns.clear()
        self._micros = None
        if extra is not None:
            self.extra[row] = extra

    def without(self, dropped: set[int]) -> "Rows":
        """Return all rows but the dropped ones, in order."""
        return self._choose_rows(row for row in range(len(self)) if row not in dropped)

    def only(self, row: int) -> "Rows":
        return self._choose_rows([row])

    def _choose_rows(self, chosen: Iterable[int]) -> "Rows":
        kept = Rows()
        for row in chosen:
            kept.add(self.events[row], self.records[row], self.indexes[row])
            if row in self.settled:
                kept.settle(len(kept) - 1, self.events[row], self.extra.get(row))
        return kept

    def micros(self) -> np.ndarray:
        """Return the events' times in microseconds since 1970."""
        if self._micros is None:
            # Through integers: pyarrow takes 49 µs for an aware datetime, this 0.3 µs.
            times = [round(event.time.timestamp() * 1e6) for event in self.events]
            self._micros = np.array(times, np.int64)
        return self._micros

    def json_values(self, name: str) -> list[bytes | None]:
        """Return a free JSON field as sent; null is None."""
        if name not in self._values:
            raws = [getattr(event, name) for event in self.events]
            self._values[name] = [
                None if raw is NULL or (value := bytes(raw)) == b"null" else value for raw in raws
            ]
        return self._values[name]

    def json_column(self, name: str) -> pa.Array:
        """Return `json_values` as text. Raises ArrowInvalid where a value is not UTF-8."""
        if name not in self._columns:
            self._columns[name] = pa.array(self.json_values(name), pa.string())
        return self._columns[name]
