"""The one clock of a test: every part that tells the time is handed the same."""

from datetime import datetime


class Clock:
    """A clock that only moves when it is told to.

    A test that names a date hands this to whatever would read the machine's clock, so that it says
    the same on any day; tests/unit/support/test_one_clock.py finds those that do not.
    """

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now
