"""A disk that fails when a test says so, and is a real one otherwise."""

import errno
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from adaptd.serving.capture.disk import Disk

METHODS = tuple(name for name in vars(Disk) if not name.startswith("_"))
ERRORS = (errno.EMFILE, errno.EIO, errno.ENOSPC)


class FailingDisk(Disk):
    """Asks `fails` before each call, with the method's name and the numbers of calls so far."""

    def __init__(self, fails: Callable[[str, Counter[str]], int | None]) -> None:
        """`fails` answers with the error's number, or None where the call is to succeed."""
        self._fails = fails
        self._calls: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """Calls so far."""
        return self._calls.total()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in METHODS:
            return found

        def call(*given: Any) -> Any:
            number = self._fails(name, self._calls)
            self._calls[name] += 1
            if number is None:
                return found(*given)
            if name == "close":  # the kernel lets go of a descriptor even where it says EIO
                found(*given)
            raise OSError(number, os.strerror(number))

        return call


def fail_at(place: int, error: int) -> FailingDisk:
    """Only the call of this number fails, counted over all methods from 0."""
    return FailingDisk(lambda _, calls: error if calls.total() == place else None)


def fail_first(method: str, error: int, *, times: int) -> FailingDisk:
    """The first calls of one method fail."""
    return FailingDisk(
        lambda name, calls: error if name == method and calls[name] < times else None
    )
