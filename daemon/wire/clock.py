"""The clock that every process reads, replaced by a fixed one in tests."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the present time, aware and in UTC."""
    return datetime.now(UTC)
