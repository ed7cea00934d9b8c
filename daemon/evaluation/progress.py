"""The progress of an evaluation, kept with its run, and its end where the run was stopped."""

import math
import time
from collections.abc import Callable
from typing import Any

from adaptd.daemon.domain.states import RunState
from adaptd.daemon.store.lifecycle.runs import RunStore


class RunStoppedError(Exception):
    """The run is no longer in evaluation: a person cancelled it."""


class EvaluationProgress:
    """Counts the items of both versions over all suites, and estimates the time left in seconds.

    Checks the run and keeps the counts every `every_s`, not at every batch: a batch may take
    milliseconds, and so does a write.
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
        self._stored = 0  # scored before, perhaps in an earlier evaluation, so without time now
        self._measured = 0

    async def stored(self, items: int) -> None:
        """Count items that were scored before."""
        self._stored += items
        await self._keep_counts()

    async def measured(self, items: int) -> None:
        """Count items that have been measured now."""
        self._measured += items
        await self._keep_counts()

    async def _keep_counts(self) -> None:
        """Store the counts with the run.

        Raises:
            RunStoppedError: the run was cancelled meanwhile.
        """
        if self._clock() < self._kept_at + self._every_s and self._done < self._total:
            return
        self._kept_at = self._clock()
        if (await self._runs.get(self._run_id)).state is not RunState.EVALUATING:
            raise RunStoppedError(self._run_id)
        progress: dict[str, Any] = {"stage": "evaluating", "step": self._done, "total": self._total}
        if self._measured:
            spent_s = self._clock() - self._began
            progress["eta_s"] = spent_s / self._measured * (self._total - self._done)
        await self._runs.set_progress(self._run_id, progress)

    @property
    def _done(self) -> int:
        # The sum passes the total where live changed meanwhile and is measured again.
        return min(self._stored + self._measured, self._total)
