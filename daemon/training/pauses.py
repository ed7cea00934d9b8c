"""The pauses of a training child that gives way to requests: the decision, the signals (ADR 12)."""

import contextlib
import os
import signal
import time
from collections.abc import Callable

import msgspec
import structlog

_log = structlog.get_logger(__name__)
# Gateways report traffic about once a second, so a shorter run would often pass unseen.
SHORTEST_RUN_S = 1.0
LONGEST_PAUSE_S = 3.0
LEAST_SHARE = SHORTEST_RUN_S / (SHORTEST_RUN_S + LONGEST_PAUSE_S)
Waiting = Callable[[], int | None]  # requests being answered now; None where it is unknown


class PauseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A child at one moment. `waiting` is None where no gateway has reported lately.

    `paused_s` is the length of the present pause, or of the last one; `ran_s` the time since then.
    """

    waiting: int | None
    is_paused: bool
    paused_s: float
    ran_s: float


def should_pause(facts: PauseFacts) -> bool:
    """True while requests wait, but never for long.

    A pause ends after LONGEST_PAUSE_S, and the run after it lasts at least a third of it, so under
    any traffic a child runs at least LEAST_SHARE of the time.
    """
    if not facts.waiting:
        return False
    if facts.is_paused:
        return facts.paused_s < LONGEST_PAUSE_S
    owed_s = facts.paused_s * LEAST_SHARE / (1 - LEAST_SHARE)
    return facts.ran_s >= max(SHORTEST_RUN_S, owed_s)


class Pauses:
    """Stops and continues one child's process group, and tells the child the sum of its pauses.

    SIGSTOP acts at once, while a child itself could stop only between micro-batches: seconds apart.
    """

    def __init__(self, waiting: Waiting, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._waiting = waiting
        self._clock = clock
        # In memory: a full disk must not keep a child stopped.
        self._told = os.fdopen(os.memfd_create("adaptd-paused"), "wb", buffering=0)
        self._is_paused = False
        self._since = clock() - SHORTEST_RUN_S
        self._last_s = 0.0
        self._before_s = 0.0

    @property
    def descriptor(self) -> int:
        """The file that holds `total_s` for the child, which reads its copy (worker/process.py)."""
        return self._told.fileno()

    @property
    def total_s(self) -> float:
        """The time for which the child has been stopped."""
        return self._before_s + (self._clock() - self._since if self._is_paused else 0.0)

    def decide(self, group: int) -> None:
        """Stop or continue the group, by the traffic of now."""
        in_state_s = self._clock() - self._since
        facts = PauseFacts(
            waiting=self._waiting(),
            is_paused=self._is_paused,
            paused_s=in_state_s if self._is_paused else self._last_s,
            ran_s=0.0 if self._is_paused else in_state_s,
        )
        if should_pause(facts) and not self._is_paused:
            self._switch_state(group, signal.SIGSTOP)
        elif not should_pause(facts):
            self.resume(group)

    def resume(self, group: int) -> None:
        """Continue the group where it is stopped. Safe to repeat, and for a group that has ended.

        A child that cannot be told of the pause continues all the same.
        """
        if not self._is_paused:
            return
        self._last_s = self._clock() - self._since
        self._before_s += self._last_s
        try:
            os.pwrite(self.descriptor, f"{self._before_s:020.3f}".encode(), 0)
        except OSError as error:  # max_time counts this pause until the next one tells the sum
            _log.warning("pause_not_told", group=group, error=str(error))
        finally:
            self._switch_state(group, signal.SIGCONT)

    def close(self) -> None:
        self._told.close()

    def _switch_state(self, group: int, to: signal.Signals) -> None:
        self._is_paused = to is signal.SIGSTOP
        self._since = self._clock()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, to)
