"""DuckDB's errors as the writer's next step: try again, start a new process, or halt.

Stands alone: the one place that interprets DuckDB's error texts.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from adaptd.daemon.wire.errors import (
    AdaptdError,
    FreshStartError,
    StoreError,
    StoreFullError,
    StoreShortError,
)

_SHORT = (duckdb.OutOfMemoryException, duckdb.TransactionException)
# The system's words in a commit's error. A bad block or a lost right does not pass with time.
_FULL = ("no space left", "file too large", "disk quota exceeded", "failed to offload")
# Their messages quote values, texts of people: never into a log.
_QUOTES_VALUES = (duckdb.DataError, duckdb.InvalidInputException)


@contextmanager
def store_errors() -> Iterator[None]:
    """Turn DuckDB's errors into those of `write_error`."""
    try:
        yield
    except duckdb.Error as error:
        raise write_error(error) from error


def write_error(error: duckdb.Error) -> AdaptdError:
    """Return the error to raise for work that stored nothing.

    StoreFullError: it passes once there is room. StoreShortError: it may pass by itself.
    FreshStartError: this process's database takes nothing any more, and a new process recovers it
    from its log. StoreError: everything else.
    """
    words = type(error).__name__
    if not isinstance(error, _QUOTES_VALUES):
        words = f"{words}: {str(error).splitlines()[0]}"
    if isinstance(error, duckdb.FatalException) or "has been invalidated" in words:
        problem = f"the database has stopped itself ({words})"
        return FreshStartError("store", problem, "A new process recovers it; check the disk")
    if any(said in words.lower() for said in _FULL):
        problem = f"there is no room for events ({words})"
        return StoreFullError("store", problem, "Make room on the disk")
    problem = f"events cannot be stored ({words})"
    if isinstance(error, _SHORT):
        return StoreShortError("store", problem, "If it comes again, raise ADAPTD_STORE_MEMORY")
    return StoreError("store", problem, "Mend the cause, then `adaptd ingest resume`")
