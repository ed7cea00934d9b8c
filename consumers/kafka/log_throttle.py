"""A throttle for the Kafka clients' logs: a broker that is away makes 70 lines of error a second.

Stands alone, since it changes the process's logging and knows nothing of the consumer.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

_CLIENTS = ("aiokafka", "kafka", "faust", "mode")
_EVERY_S = 30.0


@contextmanager
def throttle_client_logs() -> Iterator[None]:
    """While inside, handlers of the root logger see each client message at most every 30 s."""
    throttle = _ClientThrottle()
    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(throttle)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(throttle)


class _ClientThrottle(logging.Filter):
    """Lets each message template of a client's logger through once in `_EVERY_S`."""

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        client = record.name.split(".")[0] in _CLIENTS
        return not client or record.levelno >= logging.CRITICAL or self._is_due(record)

    def _is_due(self, record: logging.LogRecord) -> bool:
        key = (record.name, str(record.msg))
        now = time.monotonic()
        if now < self._next.get(key, 0.0):
            return False
        if len(self._next) > 1_000:  # templates that hold values: forget rather than grow
            self._next.clear()
        self._next[key] = now + _EVERY_S
        return True
