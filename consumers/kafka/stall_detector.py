"""The stall detector: finds a consumer that no longer moves. Pure; the caller passes the time."""

from collections.abc import Mapping, Set

from adaptd.daemon.domain.ingest import Partition
from adaptd.daemon.wire.errors import FreshStartError

Offsets = Mapping[Partition, int]
Progress = Mapping[Partition, tuple[int, int]]  # position of the next fetch, readable end

_FIRST_REQUEST_S = 3.0
_LONGEST_REQUEST_S = 24.0
_LONGEST_ABSENCE_S = 5.0  # between two calls; longer: this process itself was stopped or starved


class StalledError(FreshStartError):
    """Records wait and nothing is stored: only a new process gets rid of threads that hang."""


class StallDetector:
    """Raises StalledError where something waited for `stuck_s` and nothing moved.

    Waiting is: readable and not fetched, handed over and not stored, or a partition not assigned.
    """

    def __init__(self, stuck_s: float, *, now_s: float) -> None:
        self._stuck_s = stuck_s
        self._moved_s = now_s
        self._called_s = now_s
        self._last: object = None
        self._unassigned_s: float | None = None  # since when, or when last requested
        self._request_after_s = _FIRST_REQUEST_S

    def note_progress(
        self,
        progress: Progress,
        handed: Offsets,
        stored: Offsets,
        *,
        unassigned: Set[Partition],
        now_s: float,
    ) -> None:
        """Compare with the last call. Call it about once a second.

        `handed` holds the ends of the chunks handed over to be stored.
        """
        self._forgive_absence(now_s)
        self._note_unassigned(unassigned, now_s)
        unstored = any(stored.get(at, 0) < end for at, end in handed.items())
        # While something waits to be stored, only what is stored counts as movement: more records
        # that arrive do not.
        seen = dict(stored) if unstored else (dict(progress), dict(handed), dict(stored))
        unfetched = any(position < end for position, end in progress.values())
        waiting = unstored or unfetched or bool(unassigned)
        if seen != self._last or not waiting:
            self._last = seen
            self._moved_s = now_s
        elif now_s - self._moved_s > self._stuck_s:
            raise StalledError(
                "consumer",
                f"nothing moved for {now_s - self._moved_s:.0f} s while records wait",
                "The process ends; started again it reads on from the store",
            )

    def should_rejoin(self, *, now_s: float) -> bool:
        """Return True where it is time to ask the group for partitions that have no reader.

        Less and less often, from 3 s to 24 s: each request stops reading for a moment.
        """
        if self._unassigned_s is None or now_s - self._unassigned_s < self._request_after_s:
            return False
        self._unassigned_s = now_s
        self._request_after_s = min(2 * self._request_after_s, _LONGEST_REQUEST_S)
        return True

    def reset_timer(self, *, now_s: float) -> None:
        """Start to count again: while the broker is away, waiting is right."""
        self._moved_s = now_s

    def _forgive_absence(self, now_s: float) -> None:
        # A process under SIGSTOP, or starved of CPU, sees no movement that took place meanwhile.
        absence_s = now_s - self._called_s
        self._called_s = now_s
        if absence_s > _LONGEST_ABSENCE_S:
            self._moved_s = min(now_s, self._moved_s + absence_s)

    def _note_unassigned(self, unassigned: Set[Partition], now_s: float) -> None:
        if not unassigned:
            self._unassigned_s, self._request_after_s = None, _FIRST_REQUEST_S
        elif self._unassigned_s is None:
            self._unassigned_s = now_s


def count_lags(progress: Progress, handed: Offsets, stored: Offsets) -> dict[Partition, int]:
    """Count the offsets of each partition that are not stored yet."""
    # A partition that was fetched to its end and stored is 0 behind, even where the log ends in
    # transaction markers: those are never handed over.
    return {
        at: 0 if position >= end and handed.get(at, 0) <= stored[at] else max(0, end - stored[at])
        for at, (position, end) in progress.items()
        if at in stored
    }
