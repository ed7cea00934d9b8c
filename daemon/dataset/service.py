"""The loop of the dataset stage: builds the snapshots of queued runs, oldest first.

It stands alone as the only part that moves a run from state to state.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog

from adaptd.daemon.dataset.build import SnapshotBuilder
from adaptd.daemon.domain.states import FailureCause, RunState
from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.store.lifecycle.runs import Run, RunStore
from adaptd.daemon.wire.clock import utc_now
from adaptd.daemon.wire.errors import AdaptdError, RefusedError

_log = structlog.get_logger(__name__)
_ACTOR = "dataset"


class DatasetService:
    """Takes queued runs to a stored snapshot. The training service goes on from there."""

    def __init__(
        self,
        runs: RunStore,
        builder: SnapshotBuilder,
        book: PolicyBook,
        *,
        tick_s: float,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._runs = runs
        self._builder = builder
        self._book = book
        self._tick_s = tick_s
        self._clock = clock

    async def run(self) -> None:
        """Work until cancelled. A run that was half built is built again, which is safe."""
        await asyncio.to_thread(self._builder.clean)
        while True:
            if (run := await self._next_run()) is None:
                await asyncio.sleep(self._tick_s)
            else:
                await self.build(run)

    async def build(self, run: Run) -> None:
        """Build one run's snapshot, or fail the run with the reason."""
        try:
            version = self._book.version(run.model, run.policy_version)
            snapshot = await self._builder.build(run.run_id, version, as_of=run.created_at)
        except AdaptdError as error:
            await self._fail_run(run, FailureCause.DATA, str(error))
            return
        except OSError as error:
            await self._fail_run(run, FailureCause.DISK, error.strerror or type(error).__name__)
            return
        except Exception as error:  # noqa: BLE001 - one run must not keep the others waiting
            _log.exception("snapshot_broke", run=run.run_id)
            await self._fail_run(run, FailureCause.ERROR, f"{type(error).__name__}; see the log")
            return
        await self._runs.set_snapshot(run.run_id, snapshot.snapshot_id)
        _log.info("snapshot_built", run=run.run_id, train=snapshot.train_rows)

    async def _fail_run(self, run: Run, cause: FailureCause, why: str) -> None:
        reason, now = f"{cause}: {why}", self._clock()
        _log.warning("snapshot_failed", run=run.run_id, cause=cause, reason=why)
        try:
            await self._runs.move(run.run_id, RunState.FAILED, actor=_ACTOR, reason=reason, now=now)
        except RefusedError:  # an operator has cancelled the run since
            _log.info("run_over_already", run=run.run_id)

    async def _next_run(self) -> Run | None:
        for run in await self._runs.in_state(RunState.BUILDING):
            if run.snapshot_id is None:
                return run
        return await self._runs.claim(
            RunState.QUEUED, RunState.BUILDING, actor=_ACTOR, now=self._clock()
        )
