"""SIGINT and SIGTERM over the whole demo: the first ends it cleanly, a second one at once."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

_WANTED = (signal.SIGINT, signal.SIGTERM)
_STDERR = 2
_SHOW_CURSOR = b"\x1b[?25h\n"


class Stopped(KeyboardInterrupt):
    """Somebody asked the demo to end. `exit_code` is a shell's for a process of that signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class StopSignals:
    """Turns the first signal into `Stopped` wherever the main thread is.

    Handlers of Python's, not the loop's: most of the set-up runs without a loop, and one that
    closes takes its handlers along. A second signal ends the process, after `on_second`.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.on_second: Callable[[], None] = lambda: None
        self._on_first: Callable[[], object] = self._raise_stop
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle_signal) for number in _WANTED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType] - as it came

    @contextmanager
    def cancelling(self, task: "asyncio.Task[object]") -> Iterator[None]:
        """Inside, the first signal cancels the task of the running loop."""
        loop = asyncio.get_running_loop()
        with self._call_on_first(lambda: loop.call_soon_threadsafe(task.cancel)):
            yield

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Inside, the first signal is noted only: what ends everything must not be interrupted."""
        with self._call_on_first(lambda: None):
            yield

    def check(self) -> None:
        """Raise Stopped where a signal was noted."""
        if self.number is not None:
            self._raise_stop()

    @contextmanager
    def _call_on_first(self, action: Callable[[], object]) -> Iterator[None]:
        before, self._on_first = self._on_first, action
        try:
            yield
        finally:
            self._on_first = before

    def _handle_signal(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            self.on_second()
            if os.isatty(_STDERR):
                os.write(_STDERR, _SHOW_CURSOR)  # the live table hides it
            os._exit(128 + number)
        self.number = number
        self._on_first()

    def _raise_stop(self) -> None:
        raise Stopped(self.number or signal.SIGTERM)
