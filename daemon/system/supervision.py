"""Keeps the daemon's services running beside each other, and says which of them does not."""

import asyncio
import os
import signal
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Self

import httpx
import structlog

from adaptd.daemon.wire.errors import AdaptdError, HaltError

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_ENDED_BY_FORCE = 1
# Only these may have their message logged: others quote what they were given, which may be a
# prompt or an answer (invariant 12).
_QUOTE_NOTHING = (
    AdaptdError,
    AssertionError,
    AttributeError,
    ImportError,
    NameError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    httpx.HTTPError,
)

Service = Callable[[], Awaitable[None]]  # runs until cancelled

_log = structlog.get_logger("adaptd")


class Supervisor:
    """Runs services by name. One that fails is started again, after a pause that grows."""

    def __init__(self) -> None:
        self._problems: dict[str, str | None] = {}

    def problems(self) -> dict[str, str | None]:
        """Every service with what is wrong with it; None where nothing is."""
        return dict(self._problems)

    async def keep_running(self, name: str, work: Service) -> None:
        """Run until cancelled.

        Raises:
            HaltError: the service met something only a person may decide.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            self._problems[name] = None
            try:
                await work()
                problem = "it ended by itself"
            except HaltError:
                raise
            except Exception as error:  # noqa: BLE001 - one service must not take the others along
                problem = describe(error)
                _log.error("service_failed", service=name, error=problem, at=frames(error))
            if time.monotonic() - began > _LONGEST_PAUSE_S:
                pause_s = _FIRST_PAUSE_S
            self._problems[name] = f"{problem}; started again in {pause_s:.0f} s"
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def describe(error: BaseException) -> str:
    """An error in one line that quotes nothing a client sent."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(describe(inner) for inner in error.exceptions)
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, _QUOTE_NOTHING) else name


def frames(error: BaseException) -> list[str]:
    """Frames of a traceback, innermost last: file and line only."""
    found = traceback.extract_tb(error.__traceback__)
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in found]


@contextmanager
def stop_signals(stop: asyncio.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set the event; a second one ends the process at once."""

    def asked() -> None:
        if stop.is_set():
            os._exit(_ENDED_BY_FORCE)
        stop.set()

    loop = asyncio.get_running_loop()
    wanted = (signal.SIGINT, signal.SIGTERM)
    for number in wanted:
        loop.add_signal_handler(number, asked)
    try:
        yield
    finally:
        for number in wanted:
            loop.remove_signal_handler(number)


class ForcedEnd:
    """Ends the process where its clean end takes too long. Nothing is lost: all is in the store."""

    def __init__(self, limit_s: float) -> None:
        self._timer = threading.Timer(limit_s, os._exit, [_ENDED_BY_FORCE])
        self._timer.daemon = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def begin(self) -> None:
        """The clean end begins now."""
        self._timer.start()
