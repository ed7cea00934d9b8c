"""The gateway's log: JSON lines on standard error, beside vLLM's own; no prompt, no answer."""

import logging
import sys
from contextlib import suppress
from typing import Any

import structlog


class _StandardError:
    """Finds sys.stderr at each line, so that whoever replaces it is heeded."""

    def msg(self, message: str) -> None:
        with suppress(OSError, ValueError):  # a full disk or a closed stream must stop nobody
            sys.stderr.write(message + "\n")

    debug = info = warning = error = msg


def make_log(gateway: str) -> Any:
    """A logger of our own: this is somebody else's process, so nothing global is configured."""
    return structlog.wrap_logger(
        _StandardError(),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        part="gateway",
        gateway=gateway,
    )
