"""Questions about stored events."""

from datetime import datetime
from pathlib import Path

import msgspec

from adaptd.daemon.store.database.database import Database, rows
from adaptd.daemon.store.database.statements import statements

_EVENTS = statements("events")
_EXAMPLES = statements("examples")


class EventCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Since the store was made. `duplicates` were dropped, `dead_letters` kept with their bytes."""

    interactions: int
    feedback: int
    dead_letters: int
    duplicates: int


class EventTimes(msgspec.Struct, frozen=True, kw_only=True):
    """First and last of the senders' times, and when the last was stored. None: no event yet."""

    first_at: datetime | None
    last_at: datetime | None
    last_ingested_at: datetime | None


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """Feedback that waits for its interaction."""

    id: str
    interaction: str
    tenant: str | None
    kind: str
    origin: str
    effective_at: datetime
    ingested_at: datetime


class EventReads:
    """Counts, times and waiting feedback. Reads see the last committed transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def counts(self) -> EventCounts:
        return await self._database.read(
            lambda cursor: EventCounts(**rows(cursor, _EVENTS["count_events"])[0])
        )

    async def has(self, event_id: str) -> bool:
        """Whether an interaction or a feedback of this id is stored, whoever sent it."""
        return await self._database.read(
            lambda cursor: rows(cursor, _EVENTS["has_event"], id=event_id)[0]["found"]
        )

    async def times(self) -> dict[str, EventTimes]:
        """By "interactions" and "feedback"."""
        found = await self._database.read(lambda cursor: rows(cursor, _EVENTS["event_times"]))
        return {row.pop("kind"): EventTimes(**row) for row in found}

    async def orphan_count(self) -> int:
        return await self._database.read(
            lambda cursor: rows(cursor, _EVENTS["count_orphans"])[0]["orphans"]
        )

    async def orphans(self, *, limit: int = 100) -> list[Orphan]:
        """The longest waiting first."""
        found = await self._database.read(
            lambda cursor: rows(cursor, _EVENTS["orphans"], limit=limit)
        )
        return [Orphan(**row) for row in found]

    async def count_examples(
        self, *, as_of: datetime, model: str | None = None, tenant: str | None = None
    ) -> int:
        """Interactions known at `as_of`; None is every alias, every tenant."""
        values = {"as_of": as_of, "model": model, "tenant": tenant}
        return await self._database.read(
            lambda cursor: rows(cursor, _EXAMPLES["count_examples"], **values)[0]["examples"]
        )

    async def export_examples(
        self, path: Path, *, as_of: datetime, model: str, tenant: str | None = None
    ) -> int:
        """Write `examples_as_of` of one alias (and tenant) to a Parquet file, in a fixed order.

        What a sandboxed child may read. Memory is bounded by the store's limit. Returns the rows.
        """
        values = {"as_of": as_of, "model": model, "tenant": tenant, "path": str(path)}
        return await self._database.read(
            lambda cursor: rows(cursor, _EXAMPLES["export_examples"], **values)[0]["Count"]
        )
