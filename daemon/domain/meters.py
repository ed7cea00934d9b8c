"""Measurements of a running source of events, since the process started."""

# a default factory of list has no element type.
# pyright: reportUnknownArgumentType=false
# pyright: reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

import time
from bisect import bisect_left
from collections.abc import Sequence

from adaptd.daemon.domain.ingest import Decoded

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)
EVENTS = (1.0, 10.0, 100.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 25_000.0, 50_000.0)


class Distribution:
    """Counts of values by bucket; a bucket holds values up to its bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, float]]:
        """List each bound with the number of values up to it, as Prometheus does."""
        running = 0
        found: list[tuple[str, float]] = []
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            running += count
            found.append(("+Inf" if bound == float("inf") else str(bound), float(running)))
        return found

    def quantile(self, share: float) -> float | None:
        """Estimate the value that `share` (0 to 1) of all stay below; None before the first."""
        wanted, running = share * self.count, 0
        if not self.count:
            return None
        for index, count in enumerate(self._counts):
            if running + count >= wanted and count:
                low = self._bounds[index - 1] if index else 0.0
                high = self._bounds[min(index, len(self._bounds) - 1)]
                return low + max(0.0, high - low) * (wanted - running) / count
            running += count
        return self._bounds[-1]


class Meter:
    """One source's times: `commit` of a transaction, `delay` from the broker's append to it."""

    def __init__(self) -> None:
        self.commit = Distribution(SECONDS)
        self.delay = Distribution(SECONDS)
        self.batch = Distribution(EVENTS)

    def note(self, decoded: Decoded, commit_s: float) -> None:
        """Count a transaction that was committed just now."""
        self.commit.add(commit_s)
        tables = (decoded.interactions, decoded.feedback, decoded.dead_letters)
        self.batch.add(sum(table.num_rows for table in tables))
        now_s = time.time()
        for span in decoded.spans:
            if span.record_at is not None:
                self.delay.add(max(0.0, now_s - span.record_at.timestamp()))

    def summary(self) -> dict[str, float | None]:
        """Return milliseconds and events for the status, since the process started."""
        in_ms = {
            "commit_p50_ms": self.commit.quantile(0.5),
            "commit_p99_ms": self.commit.quantile(0.99),
            "delay_p50_ms": self.delay.quantile(0.5),
            "delay_p99_ms": self.delay.quantile(0.99),
        }
        found = {name: value and round(value * 1000, 1) for name, value in in_ms.items()}
        batch = self.batch.quantile(0.5)
        return found | {"batch_p50_events": batch and round(batch)}
