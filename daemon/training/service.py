"""The service that trains claimed runs one at a time, oldest first."""

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
    start_child,
)
from adaptd.daemon.training.pauses import Waiting
from adaptd.daemon.training.preparation import Preparation, TrainerSettings
from adaptd.daemon.training.publication import Publication
from adaptd.daemon.wire.errors import AdaptdError, RefusedError

_log = structlog.get_logger(__name__)
_ACTOR = "training"
# A child keeps max_time itself, after each step. This limit ends a child that spins for ever, and
# has room for loading and probing on a slow machine.
_LIMIT_FACTOR, _LIMIT_MORE_S = 3, 3600.0
_LOCK_TRIES, _LOCK_WAIT_S = 20, 1.0  # a killed daemon's child needs a moment to end
MAX_ATTEMPTS = 5


class NextAttempt(msgspec.Struct, frozen=True):
    """Start another child, which continues from the last checkpoint."""

    micro_batch: int | None


class TrainingService:
    """Takes runs with a snapshot to `trained`. All state is in the store: a restart resumes.

    1. Claim the oldest run that waits, or find the one in `training`.
    2. Prepare its job and start a child on it, again after a failure that may pass.
    3. Publish the finished adapter and move the run to `trained`, or to `failed` with its cause.
    4. Remove its checkpoints.
    """

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
        """`served_format` returns the number format in which the server computes.

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
        """Work until cancelled. A run found in `training` continues from its last checkpoint."""
        while True:
            if (run := await self._claim_next()) is None:
                await asyncio.sleep(self._settings.tick_s)
            else:
                await self.train(run)

    async def train(self, run: Run) -> None:
        """Take one run to `trained`, or to `failed` with its cause. Safe to repeat at any point."""
        try:
            if run.adapter is None and not await self._publication.find_staged(run):
                await self._train_until_done(run)
            await self._publication.publish(await self._runs.get(run.run_id))
        except CancelledRunError:
            _log.info("run_cancelled", run=run.run_id)
        except TrainingError as error:
            await self._fail_run(run, error.cause, error.message)
        except AdaptdError as error:
            await self._fail_run(run, FailureCause.ERROR, str(error))
        except OSError as error:
            await self._fail_run(run, FailureCause.DISK, str(error))
        except Exception as error:  # noqa: BLE001 - one run must not keep the others waiting
            _log.exception("training_raised", run=run.run_id)
            await self._fail_run(run, FailureCause.ERROR, f"{type(error).__name__}; see the log")
        await self._publication.tidy(run)

    async def _claim_next(self) -> Run | None:
        if running := await self._runs.in_state(RunState.TRAINING):
            return running[0]
        now = datetime.now(UTC)
        return await self._runs.claim(RunState.BUILDING, RunState.TRAINING, actor=_ACTOR, now=now)

    async def _train_until_done(self, run: Run) -> None:
        """Start children until one is done.

        Raises:
            TrainingError: a failure that another child would meet again.
        """
        directory = self._settings.directory(run)
        if run.stalled >= MAX_ATTEMPTS:  # the daemon ended with each child, or before it
            raise TrainingError(FailureCause.KILLED, f"it was started {run.stalled} times in vain")
        killed_at: set[KilledAt] = set()
        while True:
            run = await self._runs.begin_attempt(
                run.run_id, directory=directory, micro_batch=run.micro_batch
            )
            job = await self._preparation.make_job(run)
            try:
                await self._lock_and_train(run, job)
                return
            except TrainingError as error:
                before = run.micro_batch
                run = self._retry_or_raise(
                    run, job, error, killed_again=error.killed_at in killed_at
                )
                if run.micro_batch != before:  # a smaller one may get past that step
                    killed_at.clear()
                elif error.killed_at is not None:
                    killed_at.add(error.killed_at)

    def _retry_or_raise(
        self, run: Run, job: Job, error: TrainingError, *, killed_again: bool
    ) -> Run:
        decision = decide_retry(
            error.cause,
            stalled=run.stalled,
            lowered_to=run.micro_batch,
            micro_batch=job.micro_batch,
            killed_again=killed_again,
        )
        if decision is error.cause:
            raise error
        if isinstance(decision, FailureCause):
            raise TrainingError(decision, f"{error.message} twice {error.killed_at}") from error
        _log.warning("training_retried", run=run.run_id, cause=error.cause, attempt=run.attempts)
        return msgspec.structs.replace(run, micro_batch=decision.micro_batch)

    async def _lock_and_train(self, run: Run, job: Job) -> None:
        """Train with one child that holds the run directory alone."""
        for _ in range(_LOCK_TRIES):
            try:
                return await self._run_child(run, job)
            except LockedError:
                await asyncio.sleep(_LOCK_WAIT_S)
        raise TrainingError(FailureCause.ERROR, f"another trainer holds {job.directory}")

    async def _run_child(self, run: Run, job: Job) -> None:
        settings = self._settings
        async with start_child(
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
                on_progress=lambda line: self._store_progress(run, line),
                wanted=lambda: self._is_wanted(run),
            )
        paused_s = round(child.paused_s, 1)
        _log.info("trainer_done", run=run.run_id, content_hash=done.content_hash, paused_s=paused_s)

    async def _store_progress(self, run: Run, line: TrainingProgress) -> None:
        now = time.monotonic()
        if line.phase == "training" and now - self._stored_at < self._settings.store_progress_s:
            return
        self._stored_at = now
        await self._runs.set_progress(run.run_id, msgspec.structs.asdict(line))

    async def _is_wanted(self, run: Run) -> bool:
        return (await self._runs.get(run.run_id)).state is RunState.TRAINING

    async def _fail_run(self, run: Run, cause: FailureCause, message: str) -> None:
        _log.warning("training_failed", run=run.run_id, cause=cause)
        with contextlib.suppress(RefusedError):  # a run cancelled meanwhile stays cancelled
            await self._runs.move(
                run.run_id,
                RunState.FAILED,
                actor=_ACTOR,
                reason=f"{cause}: {message}",
                evidence={"cause": cause},
                now=datetime.now(UTC),
            )


def decide_retry(
    cause: FailureCause,
    *,
    stalled: int,
    lowered_to: int | None,
    micro_batch: int,
    killed_again: bool = False,
) -> NextAttempt | FailureCause:
    """Another child, or the cause that the run fails with. Pure.

    MAX_ATTEMPTS without progress are the last. Out of memory gets one more child, with half the
    micro-batch (`lowered_to` is set from then on); a killed child resumes. A child that SIGKILL
    ended twice at the same step (`killed_again`) ran out of memory: without a GPU no error is
    raised, the system kills. Any other failure would come again.
    """
    if cause is FailureCause.KILLED and killed_again:
        cause = FailureCause.OOM
    if stalled >= MAX_ATTEMPTS:
        return cause
    if cause is FailureCause.OOM and lowered_to is None and micro_batch > 1:
        return NextAttempt(micro_batch // 2)
    return NextAttempt(lowered_to) if cause is FailureCause.KILLED else cause
