"""Whether the consumer still moves. Pure: it is told the time."""

from collections.abc import Mapping, Set

from adaptd.daemon.domain.ingest import Partition
from adaptd.daemon.wire.errors import FreshStartError

Offsets = Mapping[Partition, int]
Progress = Mapping[Partition, tuple[int, int]]  # position of the next fetch, readable end

_FIRST_ASK_S = 3.0
_LONGEST_PATIENCE_S = 24.0
_LONGEST_LOOK_AWAY_S = 5.0  # longer: this process itself was stopped or starved


class StuckError(FreshStartError):
    """Records wait and nothing is stored: only a new process gets rid of threads that hang."""


class Watchdog:
    """Raises StuckError where something waited for `stuck_s` and nothing moved.

    Waiting is: readable and not fetched, handed over and not stored, or a partition not assigned.
    """

    def __init__(self, stuck_s: float, *, now_s: float) -> None:
        self._stuck_s = stuck_s
        self._moved_s = now_s
        self._looked_s = now_s
        self._last: object = None
        self._lacking_s: float | None = None  # since when, or when last asked for
        self._patience_s = _FIRST_ASK_S

    def see(
        self,
        progress: Progress,
        handed: Offsets,
        stored: Offsets,
        *,
        unassigned: Set[Partition],
        now_s: float,
    ) -> None:
        """Call it every second or so; `handed`: ends of the chunks handed over."""
        self._forgive_absence(now_s)
        self._note_share(unassigned, now_s)
        unstored = any(stored.get(at, 0) < end for at, end in handed.items())
        # More that arrives is no movement of what waits to be stored.
        seen = dict(stored) if unstored else (dict(progress), dict(handed), dict(stored))
        unfetched = any(position < end for position, end in progress.values())
        waiting = unstored or unfetched or bool(unassigned)
        if seen != self._last or not waiting:
            self._last = seen
            self._moved_s = now_s
        elif now_s - self._moved_s > self._stuck_s:
            raise StuckError(
                "consumer",
                f"nothing moved for {now_s - self._moved_s:.0f} s while records wait",
                "The process ends; started again it reads on from the store",
            )

    def should_rejoin(self, *, now_s: float) -> bool:
        """Whether to ask the group for partitions nobody reads. Ever rarer: it stops reading."""
        if self._lacking_s is None or now_s - self._lacking_s < self._patience_s:
            return False
        self._lacking_s = now_s
        self._patience_s = min(2 * self._patience_s, _LONGEST_PATIENCE_S)
        return True

    def _forgive_absence(self, now_s: float) -> None:
        """Nobody could move while nobody looked: a SIGSTOP, a machine out of breath."""
        away_s = now_s - self._looked_s
        self._looked_s = now_s
        if away_s > _LONGEST_LOOK_AWAY_S:
            self._moved_s = min(now_s, self._moved_s + away_s)

    def _note_share(self, unassigned: Set[Partition], now_s: float) -> None:
        if not unassigned:
            self._lacking_s, self._patience_s = None, _FIRST_ASK_S
        elif self._lacking_s is None:
            self._lacking_s = now_s

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
