"""The daemon's own words: one event a line, for people or as JSON. Never a prompt or a token."""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

import structlog

# Fields that must never reach a log (invariant 12), whoever passes them by mistake.
FORBIDDEN_FIELDS = frozenset(
    {"text", "message", "messages", "prompt", "answer", "choices"}
    | {"token", "bearer", "secret", "password"}
)
_MOST_CAUSES = 5
_NOISY = ("aiokafka", "kafka", "faust", "mode", "httpx", "httpcore", "apscheduler", "uvicorn")


def set_up_logs(*, as_json: bool) -> None:
    """Send structlog and the standard library's loggers to stderr in one format. Safe to repeat."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        hide_forbidden,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_last_steps(as_json=as_json),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def hide_forbidden(
    _logger: Any, _method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace what must never be written."""
    for name in FORBIDDEN_FIELDS & fields.keys():
        fields[name] = "(left out)"
    return fields


def _last_steps(*, as_json: bool) -> list[structlog.typing.Processor]:
    last = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    return [
        structlog.processors.ExceptionRenderer(frames_only),
        structlog.processors.JSONRenderer(default=str) if as_json else last,
    ]


def frames_only(
    exc_info: tuple[type[BaseException], BaseException, TracebackType | None],
) -> str:
    """Place and kind of an exception.

    Message and variables are left out: they may hold a prompt.
    """
    kind, error, frames = exc_info
    causes = []
    while (cause := error.__cause__) is not None and len(causes) < _MOST_CAUSES:
        causes.append(type(cause).__qualname__)
        error = cause
    because = f" (from {', '.join(causes)})" if causes else ""
    return "".join(traceback.format_tb(frames)) + kind.__qualname__ + because
