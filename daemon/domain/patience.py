"""Waits that end once nothing moves any more, not by the clock."""

import time
from collections.abc import Callable

from adaptd.daemon.domain.processes import Work

_LOOKED_AWAY_S = 30.0  # a longer gap between two looks does not count as waiting


class Patience:
    """Tells a wait that stands still from one that is slow.

    The caller notes values that the awaited work changes: items done, a phase, bytes read. The wait
    is over once none of them has changed for `still_s`. Clocks, heartbeats and counts that grow
    without the work in question are no such values. Look more often than every 30 s, and bound each
    look: the rest of a longer gap does not count, since the machine was suspended or the waiting
    process stopped.
    """

    def __init__(self, still_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.still_s = still_s
        self._clock = clock
        self._began = self._looked = self._moved = clock()
        self._values: dict[str, object] = {}
        self._last = ""

    def saw(self, **values: object) -> None:
        """Note values seen now, by name. None means unknown just now, which is no change."""
        now = self._clock()
        self._moved += max(0.0, now - self._looked - _LOOKED_AWAY_S)
        self._looked = now
        for name, value in values.items():
            if value is not None and self._values.get(name) != value:
                self._values[name] = value
                self._moved = now
                self._last = f"{name.replace('_', ' ')} {value}"

    @property
    def is_over(self) -> bool:
        """Say whether nothing has moved for `still_s`."""
        return self._clock() - self._moved > self.still_s

    @property
    def waited_s(self) -> float:
        """Seconds since the wait began."""
        return self._clock() - self._began

    @property
    def words(self) -> str:
        """Message of a wait that is over: the last movement, and its age."""
        still_s = self._clock() - self._moved
        whole = f"nothing moved for {still_s:.0f} s of {self.waited_s:.0f} s"
        return f"{whole}, last {self._last}" if self._last else f"{whole}, and nothing before"


class WorkPatience:
    """Patience with a process: its work counts as movement, but not for ever.

    Work tells a slow process from a hanging one, and not from a spinning one. So work alone, while
    nothing else moves, extends the wait to `most` times `still_s` only.
    """

    def __init__(
        self, still_s: float, *, most: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.still_s = still_s
        self._by_all = Patience(still_s, clock=clock)
        self._beside_work = Patience(most * still_s, clock=clock)

    def saw(self, *, work: Work | None, **values: object) -> None:
        """Note the work of the process so far, and other values. None means unknown."""
        self._by_all.saw(work=work and work.units(self.still_s), **values)
        self._beside_work.saw(**values)

    @property
    def is_over(self) -> bool:
        """Say whether nothing has moved for `still_s`, or only work for `most` times as long."""
        return self._by_all.is_over or self._beside_work.is_over

    @property
    def words(self) -> str:
        """Message of a wait that is over: the last movement, its age, and a busy process."""
        if self._by_all.is_over:
            return self._by_all.words
        return f"it computes, and beside that {self._beside_work.words}"


class Peak:
    """The highest value seen so far, for evidence that goes up and down.

    Only a new height counts as movement, and only one that is a tenth above the last.
    """

    def __init__(self) -> None:
        self._highest: float | None = None

    def of(self, value: float | None) -> float | None:
        """Take a value in and return the height so far."""
        if value is not None and (self._highest is None or value > 1.1 * self._highest):
            self._highest = value
        return self._highest
