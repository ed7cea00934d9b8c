"""The gateway's log: JSON lines on standard error, beside vLLM's own; no prompt, no answer."""

import logging
import sys
from contextlib import suppress
from typing import Any

import structlog


class _StandardError:
    """Writes lines to standard error."""

    def msg(self, message: str) -> None:
        with suppress(OSError, ValueError):  # a full disk or a closed stream must stop nobody
            # Looked up at each line: the process around us may replace it at any time.
            sys.stderr.write(message + "\n")

    debug = info = warning = error = msg


def make_log(gateway: str) -> Any:
    """Make a logger of the gateway's own."""
    # Nothing global is configured, because the process is vLLM's.
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
