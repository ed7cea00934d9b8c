"""How far an evaluation is, kept with its run; and its end where the run was stopped."""

import math
import time
from collections.abc import Callable

from adaptd.daemon.domain.states import RunState
from adaptd.daemon.store.lifecycle.runs import RunStore


class RunStoppedError(Exception):
    """The run is no longer being evaluated: somebody cancelled it."""


class EvaluationProgress:
    """Counts the items of both versions over all suites, and estimates the time left in seconds.

    It looks at the run and keeps what it counted every `every_s`, not at every batch: a batch may
    take milliseconds, and so does a write.
    """

    def __init__(
        self,
        runs: RunStore,
        run_id: str,
        total: int,
        *,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runs = runs
        self._run_id = run_id
        self._total = total
        self._every_s = every_s
        self._clock = clock
        self._began = clock()
        self._kept_at = -math.inf
        self._stored = 0  # scored before, perhaps in an earlier evaluation: they took no time
        self._measured = 0

    async def stored(self, items: int) -> None:
        """So many more were scored before."""
        self._stored += items
        await self._keep()

    async def measured(self, items: int) -> None:
        """So many more have been measured now."""
        self._measured += items
        await self._keep()

    async def _keep(self) -> None:
        """Raises RunStoppedError where the run was cancelled meanwhile."""
        if self._clock() < self._kept_at + self._every_s and self._done < self._total:
            return
        self._kept_at = self._clock()
        if (await self._runs.get(self._run_id)).state is not RunState.EVALUATING:
            raise RunStoppedError(self._run_id)
        left = {"eta_s": self._left_s()} if self._measured else {}
        said = {"stage": "evaluating", "step": self._done, "total": self._total}
        await self._runs.set_progress(self._run_id, said | left)

    @property
    def _done(self) -> int:
        """It could pass the total where live changed meanwhile."""
        return min(self._stored + self._measured, self._total)

    def _left_s(self) -> float:
        spent_s = self._clock() - self._began
        return spent_s / self._measured * (self._total - self._done)
