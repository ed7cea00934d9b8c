"""Builds the snapshots of queued runs, oldest first."""

import asyncio
from datetime import UTC, datetime

import structlog

from daemon.dataset.build import SnapshotBuilder
from daemon.domain.errors import AdaptdError
from daemon.domain.states import FailureCause, RunState
from daemon.policy.book import PolicyBook
from daemon.store.runs import Run, RunStore

_log = structlog.get_logger(__name__)
_ACTOR = "dataset"


class DatasetService:
    """Takes queued runs to a stored snapshot; the training service goes on from there."""

    def __init__(
        self, runs: RunStore, builder: SnapshotBuilder, book: PolicyBook, *, tick_s: float
    ) -> None:
        self._runs = runs
        self._builder = builder
        self._book = book
        self._tick_s = tick_s

    async def run(self) -> None:
        """Work until cancelled. A run found half built is built again: that is safe."""
        while True:
            if (run := await self._next()) is None:
                await asyncio.sleep(self._tick_s)
            else:
                await self.build(run)

    async def build(self, run: Run) -> None:
        """Build one run's snapshot, or fail the run with the reason."""
        try:
            version = self._book.version(run.model, run.policy_version)
            snapshot = await self._builder.build(run.run_id, version, as_of=run.created_at)
        except AdaptdError as error:
            reason = f"{FailureCause.DATA}: {error}"
            now = datetime.now(UTC)
            await self._runs.move(run.run_id, RunState.FAILED, actor=_ACTOR, reason=reason, now=now)
            return
        await self._runs.set_snapshot(run.run_id, snapshot.snapshot_id)
        _log.info("snapshot_built", run=run.run_id, train=snapshot.train_rows)

    async def _next(self) -> Run | None:
        for run in await self._runs.in_state(RunState.BUILDING):
            if run.snapshot_id is None:
                return run
        now = datetime.now(UTC)
        return await self._runs.claim(RunState.QUEUED, RunState.BUILDING, actor=_ACTOR, now=now)
