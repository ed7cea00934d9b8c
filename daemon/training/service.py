"""Trains claimed runs one at a time, oldest first."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from math import inf

import msgspec
import structlog

from adaptd.daemon.domain.states import FailureCause, RunState
from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.store.lifecycle.adapters import AdapterStore
from adaptd.daemon.store.lifecycle.runs import Run, RunStore
from adaptd.daemon.store.lifecycle.snapshots import SnapshotStore
from adaptd.daemon.training.job import Job, TrainingProgress
from adaptd.daemon.training.launcher import (
    CancelledRunError,
    KilledAt,
    LockedError,
    TrainingError,
    start,
)
from adaptd.daemon.training.pauses import Waiting
from adaptd.daemon.training.preparation import Preparation, TrainerSettings
from adaptd.daemon.training.publication import Publication
from adaptd.daemon.training.retry import MAX_ATTEMPTS, after_failure
from adaptd.daemon.wire.errors import AdaptdError, RefusedError

_log = structlog.get_logger(__name__)
_ACTOR = "training"
# A child keeps max_time itself, after each step. This ends one that spins for ever, and has room
# for loading and probing on a slow machine.
_LIMIT_FACTOR, _LIMIT_MORE_S = 3, 3600.0
_LOCK_TRIES, _LOCK_WAIT_S = 20, 1.0  # a killed daemon's child needs a moment to be gone


class TrainingService:
    """Takes runs with a snapshot to `trained`. All state is in the store: a restart resumes."""

    def __init__(
        self,
        settings: TrainerSettings,
        *,
        served_format: Callable[[], Awaitable[str]],
        runs: RunStore,
        adapters: AdapterStore,
        snapshots: SnapshotStore,
        book: PolicyBook,
        waiting: Waiting | None = None,
    ) -> None:
        """`served_format` says in which number format the server computes.

        With `waiting` a trainer gives way to requests.
        """
        self._settings = settings
        self._waiting = waiting
        self._runs = runs
        self._preparation = Preparation(
            settings, served_format=served_format, adapters=adapters, snapshots=snapshots, book=book
        )
        self._publication = Publication(settings, runs=runs, adapters=adapters)
        self._stored_at = -inf

    async def run(self) -> None:
        """Work until cancelled. A run found in `training` goes on from its last checkpoint."""
        while True:
            if (run := await self._next()) is None:
                await asyncio.sleep(self._settings.tick_s)
            else:
                await self.train(run)

    async def train(self, run: Run) -> None:
        """Take one run to `trained`, or to `failed` with its cause. Safe to repeat at any point."""
        try:
            if run.adapter is None and not await self._publication.waiting(run):
                await self._until_done(run)
            await self._publication.publish(await self._runs.get(run.run_id))
        except CancelledRunError:
            _log.info("run_cancelled", run=run.run_id)
        except TrainingError as error:
            await self._fail(run, error.cause, error.message)
        except AdaptdError as error:
            await self._fail(run, FailureCause.ERROR, str(error))
        except OSError as error:
            await self._fail(run, FailureCause.DISK, str(error))
        except Exception as error:  # noqa: BLE001 - one run must not keep the others waiting
            _log.exception("training_broke", run=run.run_id)
            await self._fail(run, FailureCause.ERROR, f"{type(error).__name__}; see the log")
        await self._publication.tidy(run)

    async def _next(self) -> Run | None:
        if running := await self._runs.in_state(RunState.TRAINING):
            return running[0]
        now = datetime.now(UTC)
        return await self._runs.claim(RunState.BUILDING, RunState.TRAINING, actor=_ACTOR, now=now)

    async def _until_done(self, run: Run) -> None:
        """Start children until one is done. Raises the failure that is not tried again."""
        directory = self._settings.directory(run)
        if run.stalled >= MAX_ATTEMPTS:  # each time the daemon went down with it, or before it
            raise TrainingError(FailureCause.KILLED, f"it was started {run.stalled} times in vain")
        killed_at: set[KilledAt] = set()
        while True:
            run = await self._runs.begin_attempt(
                run.run_id, directory=directory, micro_batch=run.micro_batch
            )
            job = await self._preparation.job(run)
            try:
                await self._attempt(run, job)
                return
            except TrainingError as error:
                before = run.micro_batch
                run = self._again(run, job, error, killed_again=error.killed_at in killed_at)
                if run.micro_batch != before:  # a smaller one may get past where that one ended
                    killed_at.clear()
                elif error.killed_at is not None:
                    killed_at.add(error.killed_at)

    def _again(self, run: Run, job: Job, error: TrainingError, *, killed_again: bool) -> Run:
        again = after_failure(
            error.cause,
            stalled=run.stalled,
            lowered_to=run.micro_batch,
            micro_batch=job.micro_batch,
            killed_again=killed_again,
        )
        if again is error.cause:
            raise error
        if isinstance(again, FailureCause):
            raise TrainingError(again, f"{error.message} twice {error.killed_at}") from error
        _log.warning("training_retried", run=run.run_id, cause=error.cause, attempt=run.attempts)
        return msgspec.structs.replace(run, micro_batch=again.micro_batch)

    async def _attempt(self, run: Run, job: Job) -> None:
        """One child that has the run directory to itself."""
        for _ in range(_LOCK_TRIES):
            try:
                return await self._child(run, job)
            except LockedError:
                await asyncio.sleep(_LOCK_WAIT_S)
        raise TrainingError(FailureCause.ERROR, f"another trainer holds {job.directory}")

    async def _child(self, run: Run, job: Job) -> None:
        settings = self._settings
        async with start(
            job,
            python=settings.python,
            poll_s=settings.tick_s,
            command=settings.command,
            waiting=self._waiting,
        ) as child:
            await self._runs.set_process(run.run_id, child.pid, job.directory)
            _log.info("trainer_started", run=run.run_id, pid=child.pid, attempt=run.attempts)
            done = await child.result(
                limit_s=_LIMIT_FACTOR * job.max_time_s + _LIMIT_MORE_S,
                on_progress=lambda line: self._note(run, line),
                wanted=lambda: self._wanted(run),
            )
        paused_s = round(child.paused_s, 1)
        _log.info("trainer_done", run=run.run_id, content_hash=done.content_hash, paused_s=paused_s)

    async def _note(self, run: Run, line: TrainingProgress) -> None:
        now = time.monotonic()
        if line.phase == "training" and now - self._stored_at < self._settings.store_progress_s:
            return
        self._stored_at = now
        await self._runs.set_progress(run.run_id, msgspec.structs.asdict(line))

    async def _wanted(self, run: Run) -> bool:
        return (await self._runs.get(run.run_id)).state is RunState.TRAINING

    async def _fail(self, run: Run, cause: FailureCause, message: str) -> None:
        _log.warning("training_failed", run=run.run_id, cause=cause)
        with contextlib.suppress(RefusedError):  # cancelled meanwhile: that stands
            await self._runs.move(
                run.run_id,
                RunState.FAILED,
                actor=_ACTOR,
                reason=f"{cause}: {message}",
                evidence={"cause": cause},
                now=datetime.now(UTC),
            )
