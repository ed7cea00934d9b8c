"""Whether the consumer still moves. Pure: it is told the time."""

from collections.abc import Mapping

from daemon.domain.errors import AdaptdError
from daemon.domain.ingest import Partition

Offsets = Mapping[Partition, int]
Progress = Mapping[Partition, tuple[int, int]]  # position of the next fetch, readable end


class StuckError(AdaptdError):
    """Records wait and nothing is stored. A fresh consumer usually mends it."""


class Watchdog:
    """Raises StuckError where something waited for `stuck_s` and nothing moved.

    Waiting is: readable and not fetched, handed over and not stored, or no partition at all.
    """

    def __init__(self, stuck_s: float, *, now_s: float) -> None:
        self._stuck_s = stuck_s
        self._moved_s = now_s
        self._last: object = None

    def see(self, progress: Progress, handed: Offsets, stored: Offsets, *, now_s: float) -> None:
        """Call it every second or so; `handed`: ends of the chunks handed over."""
        seen = (dict(progress), dict(handed), dict(stored))
        if seen != self._last or not _is_waiting(progress, handed, stored):
            self._last = seen
            self._moved_s = now_s
        elif now_s - self._moved_s > self._stuck_s:
            raise StuckError(
                "consumer",
                f"nothing moved for {now_s - self._moved_s:.0f} s while records wait",
                "It is started again by itself",
            )

    def excuse(self, *, now_s: float) -> None:
        """The broker is away: waiting is right."""
        self._moved_s = now_s


def lags(progress: Progress, handed: Offsets, stored: Offsets) -> dict[Partition, int]:
    """Offsets not stored yet. What was fetched to its end and stored is 0 behind.

    Even where transaction markers, which are never handed over, end the log.
    """
    return {
        at: 0 if position >= end and handed.get(at, 0) <= stored[at] else max(0, end - stored[at])
        for at, (position, end) in progress.items()
        if at in stored
    }


def _is_waiting(progress: Progress, handed: Offsets, stored: Offsets) -> bool:
    if not progress:
        return True
    unfetched = any(position < end for position, end in progress.values())
    return unfetched or any(stored.get(at, 0) < end for at, end in handed.items())
