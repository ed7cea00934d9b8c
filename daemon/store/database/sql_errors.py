"""What DuckDB's errors mean to whoever wrote: try again, start anew, or look into it."""

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
# Of the system's words, which a commit passes on; a bad block or a lost right does not pass.
_FULL = ("no space left", "file too large", "disk quota exceeded", "failed to offload")
_QUOTES_VALUES = (
    duckdb.DataError,
    duckdb.InvalidInputException,
)  # never into a log: texts of people


@contextmanager
def store_errors() -> Iterator[None]:
    """What DuckDB raises inside, as `write_error` says it."""
    try:
        yield
    except duckdb.Error as error:
        raise write_error(error) from error


def write_error(error: duckdb.Error) -> AdaptdError:
    """The error of work that stored nothing.

    StoreFullError where it passes once there is room; StoreShortError where it may pass by itself;
    FreshStartError where this process's database takes nothing any more and a new one recovers it
    from its log; else StoreError.
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
