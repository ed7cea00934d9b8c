"""A thread that no error ends: an error is logged, counted, and the work tried again later."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import structlog

from adaptd.daemon.wire.errors import AdaptdError
from adaptd.daemon.wire.routes import ThreadState

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
_LAST_PAUSE_S = 0.1  # short: the process waits for the end


class SupervisedThread:
    """A thread that calls `work` while there is some, then `wait` until there may be more.

    An error begins a pause that doubles up to LONGEST_PAUSE_S, and stands in `state` until `work`
    succeeds. After `stop` the thread ends once nothing is left, or after `last_tries` errors.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], bool],
        *,
        wait: Callable[[], object],
        wake: Callable[[], None],
        at_end: Callable[[], None],
        log: structlog.typing.FilteringBoundLogger,
        last_tries: int = 1,
    ) -> None:
        """`work` returns True where more may wait; `wake` ends a `wait` from any thread."""
        self._name = name
        self._work = work
        self._wait = wait
        self._wake = wake
        self._at_end = at_end
        self._log = log
        self._tries_left = last_tries
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run_thread, name=f"adaptd-{name}", daemon=True)
        self._problem: str | None = None
        self._since: datetime | None = None
        self.failures = 0

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def state(self) -> ThreadState:
        """Return its state: the problem it waits for and since when, if any."""
        problem, since = self._problem, self._since
        if self._thread.ident is not None and not self.is_alive and not self.is_stopping:
            problem = f"the thread has ended ({problem or 'no error was told'})"
        return ThreadState(name=self._name, problem=problem, since=since)

    def stop(self, limit_s: float) -> bool:
        """Let it finish. False where `limit_s` is too short; it then ends with the process."""
        self._stopping.set()
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(limit_s)
        return not self.is_alive

    def _run_thread(self) -> None:
        try:
            self._work_until_stopped()
        finally:
            with suppress(Exception):
                self._at_end()

    def _work_until_stopped(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                is_more = self._work()
            except Exception as error:  # noqa: BLE001 - disk, client library or callback: this thread must live
                self._note_error(error)
                if not self._may_try_again(pause_s):
                    return
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            self._note_success()
            pause_s = FIRST_PAUSE_S
            if is_more:
                continue
            if self.is_stopping:
                return
            self._wait()

    def _may_try_again(self, pause_s: float) -> bool:
        """Wait for the next try. False where there is none: the thread ends."""
        if not self._stopping.wait(pause_s):
            return True
        self._tries_left -= 1
        if self._tries_left > 0:
            time.sleep(_LAST_PAUSE_S)
        return self._tries_left > 0

    def _note_error(self, error: Exception) -> None:
        """Log the first of equal errors in a row; the counter holds the rest."""
        self.failures += 1
        # The message of any other error may quote a prompt.
        known = isinstance(error, AdaptdError | OSError)
        problem = str(error) if known else type(error).__name__
        self._since = self._since or datetime.now(UTC)
        if problem != self._problem:
            self._problem = problem
            self._log.error("thread_stalled", thread=self._name, problem=problem)

    def _note_success(self) -> None:
        if self._problem is not None:
            self._problem = self._since = None
            self._log.info("thread_recovered", thread=self._name)
