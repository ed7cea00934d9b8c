"""Starts a training child, reads its lines, and never leaves it behind."""

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
from adaptd.daemon.domain.processes import Work, group_members, work_of
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

STILL_S = 180.0  # no line, below a twentieth of a core, below 10 kB/s for so long: it hangs
_PACE_S = 0.25  # how often a child that gives way is looked at
_WORK_LOOK_S = 1.0  # and how often its work is: that reads the fields of each process
OnProgress = Callable[[TrainingProgress], Awaitable[None]]
Wanted = Callable[[], Awaitable[bool]]


class KilledAt(NamedTuple):
    """What a child had reported last where SIGKILL ended it, by whatever hand."""

    phase: str
    step: int

    def __str__(self) -> str:
        return f"at step {self.step}" if self.phase == "training" else f"while {self.phase}"


class TrainingError(Exception):
    """A child ended without an adapter: expected, it becomes the run's state."""

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
    """A running child. Made by `start`."""

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
        """As of subprocess; None while it runs."""
        return self._process.returncode

    @property
    def paused_s(self) -> float:
        """The time for which it was stopped, so that requests are answered sooner."""
        return self._pauses.total_s if self._pauses else 0.0

    async def result(
        self,
        *,
        limit_s: float,
        on_progress: OnProgress,
        wanted: Wanted,
        still_s: float = STILL_S,
    ) -> Done:
        """Wait for the child's last line, passing on the others.

        It may take as long as it moves: says a line, computes, reads or writes. `limit_s` only
        bounds one that spins for ever. Neither counts the time for which it is stopped.

        `wanted` is asked every `poll_s`; a child no longer wanted is given up. It gives way to
        requests from its first line on: by then the kernel ends it with the daemon, stopped or not.

        Raises:
            TrainingError: it failed, was killed, stood still for `still_s`, or took longer than
                `limit_s`.
            LockedError: another child holds the run directory.
            CancelledRunError: it is no longer wanted.
        """
        last: Line | None = None
        reached: KilledAt | None = None
        patience, lines = Patience(still_s, clock=self._running_s), 0
        while (raw := await self._raw_line()) != b"":
            lines += raw is not None
            patience.saw(lines=lines)
            line = decode_line(raw) if raw else None
            if isinstance(line, TrainingProgress):
                reached = KilledAt(line.phase, line.step)
                await on_progress(line)
            elif line is not None:
                last = line
            if reached and self._pauses:
                self._pauses.decide(self.pid)
            await self._check(patience, limit_s, wanted)
        self._resume()
        while (code := await self._exit_code()) is None:
            await self._check(patience, limit_s, wanted)
        if isinstance(last, Done) and code == 0:
            return last
        raise _failure(last, code, reached)

    async def _raw_line(self) -> bytes | None:
        """A line; b"" at the end of the output; None where there was none for a while."""
        assert self._process.stdout
        try:
            async with asyncio.timeout(min(self._poll_s, _PACE_S)):
                return await self._process.stdout.readline()
        except TimeoutError:
            return None

    async def _exit_code(self) -> int | None:
        """None where it has not ended for a while."""
        try:
            return await asyncio.wait_for(self._process.wait(), min(self._poll_s, _PACE_S))
        except TimeoutError:
            return None

    async def _check(self, patience: Patience, limit_s: float, wanted: Wanted) -> None:
        if patience.waited_s > limit_s:
            problem = f"it did not end by itself within {limit_s:.0f} s"
            raise TrainingError(FailureCause.TIMEOUT, problem)
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + min(_WORK_LOOK_S, patience.still_s / 4)
            work = await asyncio.to_thread(self._work)
            patience.saw(work=work and work.units(patience.still_s))
        if patience.is_over:
            raise TrainingError(FailureCause.TIMEOUT, f"it hangs: {patience.words}")
        if now >= self._ask_at:
            self._ask_at = now + self._poll_s
            if not await wanted():
                raise CancelledRunError

    def _running_s(self) -> float:
        """A clock that stands still while the child is stopped."""
        return self._clock() - self.paused_s

    def _work(self) -> Work | None:
        return work_of(group_members(self.pid))

    async def stop(self) -> None:
        """End the child's whole process group, first politely. Safe to repeat.

        SIGKILL follows whatever goes wrong before it, a cancellation too.
        """
        if self._process.returncode is not None:
            return
        try:
            self._signal(signal.SIGTERM)
            self._resume()  # else the signal waits for ever
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), self._grace_s)
        finally:
            if self._process.returncode is None:
                self._signal(signal.SIGKILL)  # it ends a stopped child too
                await self._process.wait()

    def _signal(self, signal_: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal_)

    def _resume(self) -> None:
        if self._pauses:
            self._pauses.resume(self.pid)


@asynccontextmanager
async def start(
    job: Job,
    *,
    python: Path | None = None,
    poll_s: float = 1.0,
    grace_s: float = 5.0,
    command: Sequence[str] = (),
    waiting: Waiting | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[TrainingChild]:
    """Write the job and start a child on it; leaving the block ends it.

    `python` is the interpreter of the environment that has torch, None for this one. `command`
    replaces `python -m adaptd.daemon.training.worker`; the job file is its last argument.
    `grace_s` lies between asking the child to end and ending it. With `waiting` it gives way to
    requests.

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
        process = await _spawn([*words, str(path)], job, python, pauses)
        child = TrainingChild(process, poll_s=poll_s, grace_s=grace_s, pauses=pauses, clock=clock)
        try:
            yield child
        finally:
            await child.stop()


async def _spawn(
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
            start_new_session=True,  # a group of its own: Ctrl-C on the daemon is not for it
            cwd=job.directory,
            env=_environment(python) | told,
            pass_fds=(pauses.descriptor,) if pauses else (),
        )
    except OSError as error:
        raise TrainingError(FailureCause.ERROR, f"cannot start {words[0]}: {error}") from error
    finally:
        log.close()


def _environment(python: Path | None) -> dict[str, str]:
    """Ours without ADAPTD_*: settings and secrets are not the child's. It is told whom to die with.

    Another interpreter has adaptd installed; this one may run from a source tree.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ADAPTD_")}
    if python is None:
        kept["PYTHONPATH"] = os.pathsep.join(
            filter(None, (str(IMPORT_ROOT), kept.get("PYTHONPATH")))
        )
    return kept | {PARENT_PID: str(os.getpid())}


def _failure(last: Line | None, code: int, reached: KilledAt | None) -> Exception:
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
