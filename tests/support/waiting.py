"""Wait for facts, with limits, instead of sleeping.

A limit says how long a wait goes on while nothing moves. The seconds in which the machine works, or
in which work waits for a processor, memory or a disk, count a tenth: on one core, at a quarter of
the speed or beside a neighbour that takes a core the same things come to pass, only later. A wait
for what never comes ends after its limit on a quiet machine, and after ten times that on any.
"""

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
SLACK = 10  # at most so many times its limit does a wait take
# For what takes a limit of its own and cannot be watched: a request, a child, another one's wait.
# What hangs for good is ended by the test's own limit long before.
LIMIT_S = 1200.0
_PRESSURES = tuple(Path("/proc/pressure") / what for what in ("cpu", "io", "memory"))
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def busy_s() -> float:
    """Seconds of work done by all processors, and of work that waited; only differences count.

    Where the kernel tells neither it is 0: a limit is then plain time.
    """
    try:
        user, nice, system, _idle, _iowait, *interrupts = map(
            int, Path("/proc/stat").read_text("ascii").partition("\n")[0].split()[1:9]
        )
    except (OSError, ValueError):
        return 0.0
    return (user + nice + system + sum(interrupts)) * _TICK_S + sum(map(_pressure_s, _PRESSURES))


def _pressure_s(path: Path) -> float:
    """How long something waited that could have run; 0 on a kernel that does not count it."""
    try:
        some = path.read_text("ascii").partition("\n")[0]
    except OSError:
        return 0.0
    return int(some.rpartition("=")[2]) / 1e6


class Patience:
    """How much of a limit is left."""

    def __init__(
        self,
        limit_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        busy: Callable[[], float] = busy_s,
    ) -> None:
        self._limit_s = limit_s
        self._clock, self._began_s = clock, clock()
        self._busy, self._busy_before_s = busy, busy()

    def left_s(self) -> float:
        """Seconds of quiet that are left; not above 0 where it is at its end."""
        passed_s = self._clock() - self._began_s
        if passed_s < self._limit_s:
            return self._limit_s - passed_s
        busy_for_s = min(passed_s, self._busy() - self._busy_before_s)
        return self._limit_s - passed_s + busy_for_s * (1 - 1 / SLACK)


async def until(
    predicate: Callable[[], T | Awaitable[T]], *, within_s: float, every_s: float = 0.05
) -> T:
    """Ask until the answer is truthy, and return it. The predicate may be async.

    Raises:
        AssertionError: it was still falsy after `within_s` of a quiet machine; the message holds
            the last answer.
    """
    patience = Patience(within_s)
    while True:
        answer = predicate()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        assert patience.left_s() > 0, f"still {answer!r} after {within_s} s"
        await asyncio.sleep(every_s)


def until_blocking(predicate: Callable[[], T], *, within_s: float, every_s: float = 0.05) -> T:
    """The same for tests and fixtures without a loop."""
    patience = Patience(within_s)
    while not (answer := predicate()):
        assert patience.left_s() > 0, f"still {answer!r} after {within_s} s"
        time.sleep(every_s)
    return answer
