"""The Kafka clients' logs, thinned: a broker that is away makes 70 lines of error a second."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

_CLIENTS = ("aiokafka", "kafka", "faust", "mode")
_EVERY_S = 30.0


class _OncePerWhile(logging.Filter):
    """Lets each message template of a logger through once in `_EVERY_S`."""

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.name, str(record.msg))
        now = time.monotonic()
        if now < self._next.get(key, 0.0):
            return False
        if len(self._next) > 1_000:  # templates made of values: forget rather than grow
            self._next.clear()
        self._next[key] = now + _EVERY_S
        return True


@contextmanager
def few_client_logs() -> Iterator[None]:
    """While inside, handlers of the root logger see each client message at most every 30 s."""
    thin = _OncePerWhile()
    only_clients = _OnlyClients(thin)
    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(only_clients)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(only_clients)


class _OnlyClients(logging.Filter):
    def __init__(self, thin: _OncePerWhile) -> None:
        super().__init__()
        self._thin = thin

    def filter(self, record: logging.LogRecord) -> bool:
        client = record.name.split(".")[0] in _CLIENTS
        return not client or record.levelno >= logging.CRITICAL or self._thin.filter(record)
