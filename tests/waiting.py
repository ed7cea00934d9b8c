"""Wait for facts, with limits, instead of sleeping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(
    predicate: Callable[[], T | Awaitable[T]], *, within_s: float, every_s: float = 0.05
) -> T:
    """Ask until the answer is truthy, and return it. The predicate may be async.

    Raises:
        AssertionError: it was still falsy after `within_s`; the message holds the last answer.
    """
    deadline = time.monotonic() + within_s
    while True:
        answer = predicate()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, f"still {answer!r} after {within_s} s"
        await asyncio.sleep(every_s)


def until_blocking(predicate: Callable[[], T], *, within_s: float, every_s: float = 0.05) -> T:
    """The same for tests and fixtures without a loop."""
    deadline = time.monotonic() + within_s
    while not (answer := predicate()):
        assert time.monotonic() < deadline, f"still {answer!r} after {within_s} s"
        time.sleep(every_s)
    return answer
