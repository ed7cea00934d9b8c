"""The start of a training child, the reading of its lines, and its certain end."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from adaptd import IMPORT_ROOT
from adaptd.daemon.domain.patience import Patience
from adaptd.daemon.domain.processes import group_members, work_of
from adaptd.daemon.domain.states import FailureCause
from adaptd.daemon.training.job import (
    EXIT_LOCKED,
    LOG_FILE,
    PARENT_PID,
    PAUSED_FD,
    Done,
    Failed,
    Job,
    Line,
    TrainingProgress,
    decode_line,
    write_job,
)
from adaptd.daemon.training.pauses import Pauses, Waiting

STILL_S = 180.0  # a child hangs after no line, below 1/20 of a core and 10 kB/s, for so long
_PACE_S = 0.25  # between two decisions on a child that gives way
_WORK_CHECK_S = 1.0  # between two measurements of its work, which read the fields of each process
OnProgress = Callable[[TrainingProgress], Awaitable[None]]
Wanted = Callable[[], Awaitable[bool]]


class KilledAt(NamedTuple):
    """The last report of a child that SIGKILL ended, whoever sent it."""

    phase: str
    step: int

    def __str__(self) -> str:
        return f"at step {self.step}" if self.phase == "training" else f"while {self.phase}"


class TrainingError(Exception):
    """A child ended without an adapter. Expected: the error becomes the run's state."""

    def __init__(
        self, cause: FailureCause, message: str, *, killed_at: KilledAt | None = None
    ) -> None:
        super().__init__(f"{cause}: {message}")
        self.cause = cause
        self.message = message
        self.killed_at = killed_at


class LockedError(Exception):
    """Another child still holds the run directory."""


class CancelledRunError(Exception):
    """The run is no longer wanted."""


class TrainingChild:
    """A running child. Made by `start_child`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        *,
        poll_s: float,
        grace_s: float,
        pauses: Pauses | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._process = process
        self._clock = clock
        self._poll_s = poll_s
        self._grace_s = grace_s
        self._pauses = pauses
        self._look_at = self._ask_at = clock()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, as subprocess has it; None while the child runs."""
        return self._process.returncode

    @property
    def paused_s(self) -> float:
        """The time for which the child was stopped, so that requests are answered sooner."""
        return self._pauses.total_s if self._pauses else 0.0

    async def result(
        self,
        *,
        limit_s: float,
        on_progress: OnProgress,
        wanted: Wanted,
        still_s: float = STILL_S,
    ) -> Done:
        """Wait for the child's last line, and pass on the others.

        1. Read lines to the end of the output, and report progress.
        2. After each line, or without one for a while: pause or resume, then check limits and
           `wanted` (every `poll_s`).
        3. Resume the child for good, and wait for its exit code under the same checks.
        4. Return a `done` line with exit code 0; raise everything else.

        A child may take any time while it moves: reports a line, computes, reads or writes.
        `limit_s` only bounds a child that spins for ever. Neither counts the time of pauses.

        Raises:
            TrainingError: the child failed, was killed, stood still for `still_s`, or took longer
                than `limit_s`.
            LockedError: another child holds the run directory.
            CancelledRunError: the child is no longer wanted.
        """
        patience = Patience(still_s, clock=self._measure_running_s)

        async def check_limits() -> None:
            await self._check_limits(patience, limit_s, wanted)

        last, reached = await self._read_lines(patience, on_progress, check_limits)
        self._resume_child()
        while (code := await self._wait_for_exit()) is None:
            await check_limits()
        if isinstance(last, Done) and code == 0:
            return last
        raise _end_error(last, code, reached)

    async def _read_lines(
        self,
        patience: Patience,
        on_progress: OnProgress,
        check_limits: Callable[[], Awaitable[None]],
    ) -> tuple[Line | None, KilledAt | None]:
        """Read to the end of the output. Return the last line, and the last progress."""
        last: Line | None = None
        reached: KilledAt | None = None
        lines = 0
        while (raw := await self._read_line()) != b"":
            lines += raw is not None
            patience.saw(lines=lines)
            line = decode_line(raw) if raw else None
            if isinstance(line, TrainingProgress):
                reached = KilledAt(line.phase, line.step)
                await on_progress(line)
            elif line is not None:
                last = line
            # Only after its first line: from then on the kernel ends the child with the daemon,
            # stopped or not.
            if reached and self._pauses:
                self._pauses.decide(self.pid)
            await check_limits()
        return last, reached

    async def _read_line(self) -> bytes | None:
        """A line; b"" at the end of the output; None without a line for a while."""
        assert self._process.stdout
        try:
            async with asyncio.timeout(min(self._poll_s, _PACE_S)):
                return await self._process.stdout.readline()
        except TimeoutError:
            return None

    async def _wait_for_exit(self) -> int | None:
        """The exit code; None where the child has not ended after a while."""
        try:
            return await asyncio.wait_for(self._process.wait(), min(self._poll_s, _PACE_S))
        except TimeoutError:
            return None

    async def _check_limits(self, patience: Patience, limit_s: float, wanted: Wanted) -> None:
        if patience.waited_s > limit_s:
            problem = f"it did not end by itself within {limit_s:.0f} s"
            raise TrainingError(FailureCause.TIMEOUT, problem)
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + min(_WORK_CHECK_S, patience.still_s / 4)
            work = await asyncio.to_thread(lambda: work_of(group_members(self.pid)))
            patience.saw(work=work and work.units(patience.still_s))
        if patience.is_over:
            raise TrainingError(FailureCause.TIMEOUT, f"it hangs: {patience.words}")
        if now >= self._ask_at:
            self._ask_at = now + self._poll_s
            if not await wanted():
                raise CancelledRunError

    def _measure_running_s(self) -> float:
        """The time of a clock that stands still while the child is stopped."""
        return self._clock() - self.paused_s

    async def stop(self) -> None:
        """End the child's whole process group, with SIGTERM and then SIGKILL. Safe to repeat.

        SIGKILL follows any error before it, a cancellation too.
        """
        if self._process.returncode is not None:
            return
        try:
            self._signal_group(signal.SIGTERM)
            self._resume_child()  # a stopped child would not receive the signal
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), self._grace_s)
        finally:
            if self._process.returncode is None:
                self._signal_group(signal.SIGKILL)  # ends a stopped child too
                await self._process.wait()

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _resume_child(self) -> None:
        if self._pauses:
            self._pauses.resume(self.pid)


@asynccontextmanager
async def start_child(
    job: Job,
    *,
    python: Path | None = None,
    poll_s: float = 1.0,
    grace_s: float = 5.0,
    command: Sequence[str] = (),
    waiting: Waiting | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[TrainingChild]:
    """Write the job and start a child on it. The end of the block ends the child.

    `python` is the interpreter of the environment that has torch, None for this one. `command`
    replaces `python -m adaptd.daemon.training.worker`; the job file is its last argument.
    `grace_s` lies between SIGTERM and SIGKILL. With `waiting` the child gives way to requests.

    Raises:
        TrainingError: the interpreter cannot be started.
        OSError: the run directory cannot be written.
    """
    path = await asyncio.to_thread(write_job, job)
    words = command or (str(python or sys.executable), "-m", "adaptd.daemon.training.worker")
    with contextlib.ExitStack() as stack:
        pauses = Pauses(waiting, clock=clock) if waiting else None
        if pauses:
            stack.enter_context(contextlib.closing(pauses))
        process = await _spawn_process([*words, str(path)], job, python, pauses)
        child = TrainingChild(process, poll_s=poll_s, grace_s=grace_s, pauses=pauses, clock=clock)
        try:
            yield child
        finally:
            await child.stop()


async def _spawn_process(
    words: list[str], job: Job, python: Path | None, pauses: Pauses | None
) -> asyncio.subprocess.Process:
    told = {PAUSED_FD: str(pauses.descriptor)} if pauses else {}
    log = (Path(job.directory) / LOG_FILE).open("ab")
    try:
        return await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # a group of its own, which Ctrl-C on the daemon does not reach
            cwd=job.directory,
            env=_child_environment(python) | told,
            pass_fds=(pauses.descriptor,) if pauses else (),
        )
    except OSError as error:
        raise TrainingError(FailureCause.ERROR, f"cannot start {words[0]}: {error}") from error
    finally:
        log.close()


def _child_environment(python: Path | None) -> dict[str, str]:
    """This process's environment without ADAPTD_*, and with the daemon that the child dies with."""
    # ADAPTD_* holds settings and secrets of the daemon.
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ADAPTD_")}
    if python is None:  # it may run from a source tree; another interpreter has adaptd installed
        kept["PYTHONPATH"] = os.pathsep.join(
            filter(None, (str(IMPORT_ROOT), kept.get("PYTHONPATH")))
        )
    return kept | {PARENT_PID: str(os.getpid())}


def _end_error(last: Line | None, code: int, reached: KilledAt | None) -> Exception:
    if isinstance(last, Failed):
        return TrainingError(last.cause, last.message)
    if code == EXIT_LOCKED:
        return LockedError()
    if code < 0:
        name = signal.Signals(-code).name
        killed_at = reached if -code == signal.SIGKILL else None
        message = f"the trainer was ended by {name}"
        return TrainingError(FailureCause.KILLED, message, killed_at=killed_at)
    return TrainingError(FailureCause.ERROR, f"the trainer ended with code {code}; see {LOG_FILE}")
