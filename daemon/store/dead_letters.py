"""Events that could not be taken: with their bytes, where they came from and why."""

import builtins
from datetime import datetime

import msgspec

from daemon.store.database import Database, rows
from daemon.store.statements import statements

_SQL = statements("dead_letters")


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """`position`: Kafka's offset or the HTTP request's number. `bytes` None: it had none."""

    id: str
    received_at: datetime
    reason: str
    detail: str
    source: str
    topic: str | None
    partition: int | None
    position: int | None
    batch_index: int | None
    redriven_at: datetime | None = None
    size_bytes: int | None = None
    bytes: builtins.bytes | None = None


class DeadLetterReason(msgspec.Struct, frozen=True, kw_only=True):
    reason: str
    letters: int
    first_at: datetime
    last_at: datetime


class DeadLetterStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_reason(self) -> list[DeadLetterReason]:
        """The most frequent first."""
        found = await self._database.read(
            lambda cursor: rows(cursor, _SQL["dead_letters_by_reason"])
        )
        return [DeadLetterReason(**row) for row in found]

    async def list(self, *, reason: str | None = None, limit: int = 50) -> list[DeadLetter]:
        """The newest first, with sizes instead of bytes."""
        found = await self._database.read(
            lambda cursor: rows(cursor, _SQL["list_dead_letters"], reason=reason, limit=limit)
        )
        return [DeadLetter(**row) for row in found]

    async def show(self, letter_id: str) -> DeadLetter | None:
        """One with its bytes."""
        found = await self._database.read(
            lambda cursor: rows(cursor, _SQL["show_dead_letter"], id=letter_id)
        )
        return DeadLetter(**found[0]) if found else None
