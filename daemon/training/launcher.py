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

from daemon.domain.states import FailureCause
from daemon.training.job import (
    EXIT_LOCKED,
    LOG_FILE,
    PARENT_PID,
    Done,
    Failed,
    Job,
    Line,
    Progress,
    decode_line,
    write_job,
)

OnProgress = Callable[[Progress], Awaitable[None]]
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
        self, process: asyncio.subprocess.Process, *, poll_s: float, grace_s: float
    ) -> None:
        self._process = process
        self._poll_s = poll_s
        self._grace_s = grace_s
        self._check_at = 0.0

    @property
    def pid(self) -> int:
        return self._process.pid

    async def result(self, *, limit_s: float, on_progress: OnProgress, wanted: Wanted) -> Done:
        """Wait for the child's last line, passing on the others.

        `wanted` is asked every `poll_s`; a child no longer wanted is given up.

        Raises:
            TrainingError: it failed, was killed, or took longer than `limit_s`.
            LockedError: another child holds the run directory.
            CancelledRunError: it is no longer wanted.
        """
        last: Line | None = None
        reached: KilledAt | None = None
        deadline = time.monotonic() + limit_s
        while (raw := await self._raw_line()) != b"":
            line = decode_line(raw) if raw else None
            if isinstance(line, Progress):
                reached = KilledAt(line.phase, line.step)
                await on_progress(line)
            elif line is not None:
                last = line
            await self._check(deadline, wanted)
        code = await self._process.wait()
        if isinstance(last, Done) and code == 0:
            return last
        raise _failure(last, code, reached)

    async def _raw_line(self) -> bytes | None:
        """A line; b"" at the end of the output; None where there was none for `poll_s`."""
        assert self._process.stdout
        try:
            async with asyncio.timeout(self._poll_s):
                return await self._process.stdout.readline()
        except TimeoutError:
            return None

    async def _check(self, deadline: float, wanted: Wanted) -> None:
        now = time.monotonic()
        if now > deadline:
            raise TrainingError(FailureCause.TIMEOUT, "it did not end by itself in time")
        if now >= self._check_at:
            self._check_at = now + self._poll_s
            if not await wanted():
                raise CancelledRunError

    async def stop(self) -> None:
        """End the child's whole process group, first politely. Safe to repeat."""
        for signal_, patience_s in ((signal.SIGTERM, self._grace_s), (signal.SIGKILL, None)):
            if self._process.returncode is not None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal_)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), patience_s)


@asynccontextmanager
async def start(
    job: Job,
    *,
    python: Path | None = None,
    poll_s: float = 1.0,
    grace_s: float = 5.0,
    command: Sequence[str] = (),
) -> AsyncIterator[TrainingChild]:
    """Write the job and start a child on it; leaving the block ends it.

    `python` is the interpreter of the environment that has torch, None for this one. `command`
    replaces `python -m daemon.training.worker`; the job file is its last argument. `grace_s` lies
    between asking the child to end and ending it.

    Raises:
        TrainingError: the interpreter cannot be started.
        OSError: the run directory cannot be written.
    """
    path = await asyncio.to_thread(write_job, job)
    words = command or (str(python or sys.executable), "-m", "daemon.training.worker")
    process = await _spawn([*words, str(path)], job, python)
    child = TrainingChild(process, poll_s=poll_s, grace_s=grace_s)
    try:
        yield child
    finally:
        await child.stop()


async def _spawn(words: list[str], job: Job, python: Path | None) -> asyncio.subprocess.Process:
    log = (Path(job.directory) / LOG_FILE).open("ab")
    try:
        return await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # a group of its own: Ctrl-C on the daemon is not for it
            cwd=job.directory,
            env=_environment(python),
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
        source = str(Path(__file__).parents[2])
        kept["PYTHONPATH"] = os.pathsep.join(filter(None, (source, kept.get("PYTHONPATH"))))
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
