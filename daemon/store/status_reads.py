"""What people and scrapers want to see of the store: counts, the newest, histories."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements

_SQL = statements("surfaces")
_JSON_COLUMNS = (
    "detail",
    "trigger",
    "progress",
    "report",
    "frozen",
    "evidence",
    "published",
    "waivers",
)
_FACTS = (
    "dead_letters_by_reason",
    "totals_by_source",
    "offsets",
    "open_halts",
    "runs_by_state",
    "newest_runs",
    "adapters_by_state",
    "adapters_in_use",
    "evaluations_by_verdict",
    "newest_evaluations",
    "rollouts_by_state",
    "newest_rollouts",
    "newest_table",
)

Row = dict[str, Any]


class EventTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived. `last_minute` counts interactions and feedback ingested in the last 60 s.

    `duplicates` were dropped, since the store was made. `orphans`: feedback stored by
    `orphans_until` that waits for its interaction. `unscaled_ratings`: stored by older releases,
    neither -1 nor 1 and without a scale, so that nothing is learnt from them.
    """

    interactions: int
    feedback: int
    dead_letters: int
    unpublished_letters: int
    last_minute: int
    duplicates: int = 0
    orphans: int = 0
    orphans_until: datetime | None = None
    unscaled_ratings: int = 0
    last_interaction_at: datetime | None
    last_feedback_at: datetime | None


class StoreFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One consistent look at the store; rows are as stored, with their JSON read."""

    events: EventTotals
    dead_letters_by_reason: list[Row]
    totals_by_source: list[Row]
    offsets: list[Row]
    open_halts: list[Row]
    runs_by_state: list[Row]
    newest_runs: list[Row]
    adapters_by_state: list[Row]
    adapters_in_use: list[Row]
    evaluations_by_verdict: list[Row]
    newest_evaluations: list[Row]
    rollouts_by_state: list[Row]
    newest_rollouts: list[Row]
    newest_table: list[Row]
    store_bytes: dict[str, int] = {}  # by "database" and "log": files, empty for a store in memory


class Delay(msgspec.Struct, frozen=True, kw_only=True):
    """Mean time from an answer to its feedback on one arm."""

    arm: str
    count: int
    mean_s: float


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What one alias saw from `since` to `now`: the guard's raw material."""

    model: str
    since: datetime
    now: datetime
    first_at: datetime | None
    requests: int
    units: int
    negative_units: int
    delays: list[Delay]


class SurfaceStore:
    """Reads only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def facts(self, now: datetime) -> StoreFacts:
        """Everything the status page and a scrape need, in one go."""
        return await self._database.read(lambda cursor: _facts(cursor, now))

    async def evaluations(
        self,
        *,
        model: str | None = None,
        run_id: str | None = None,
        limit: int = 50,
        seen: Collection[str] | None = None,
    ) -> list[Row]:
        """Newest first. `seen` leaves out all aliases but those; None: none is left out."""
        values = {"model": model, "run_id": run_id, "limit": limit}
        only = None if seen is None else sorted(seen)
        return await self._read("evaluations_of", **values, seen=only)

    async def receipts(self, adapter: str) -> list[Row]:
        return await self._read("receipts_of", adapter=adapter)

    async def history(self, kind: str, subject: str) -> list[Row]:
        """Every change of state of a run, adapter, rollout or of ingestion, oldest first."""
        return await self._read("history", kind=kind, subject=subject)

    async def traffic(self, model: str, since: datetime, *, now: datetime) -> Traffic:
        """Units, negatives and feedback delays of one alias since a time (UTC)."""
        counted = (await self._read("traffic", model=model, since=since))[0]
        delays = await self._read("feedback_delays", model=model, since=since)
        return Traffic(
            model=model,
            since=since,
            now=now,
            delays=msgspec.convert(delays, list[Delay]),
            **counted,
        )

    async def _read(self, name: str, **values: Any) -> list[Row]:
        return await self._database.read(lambda cursor: _rows(cursor, name, **values))


def _facts(cursor: Connection, now: datetime) -> StoreFacts:
    counts = msgspec.convert(_rows(cursor, "events", now=now)[0], EventTotals)
    found = {name: _rows(cursor, name) for name in _FACTS}
    paths = [Path(row["path"]) for row in _rows(cursor, "files")]
    return StoreFacts(events=counts, **found, store_bytes=_sizes(paths))


def _sizes(paths: Sequence[Path]) -> dict[str, int]:
    found: dict[str, int] = {}
    for path in paths:
        for kind, file in (("database", path), ("log", Path(f"{path}.wal"))):
            with suppress(OSError):  # there is no log after a checkpoint
                found[kind] = found.get(kind, 0) + file.stat().st_size
    return found


def _rows(cursor: Connection, name: str, **values: Any) -> list[Row]:
    found = rows(cursor, _SQL[name], **values)
    for row in found:
        for column in _JSON_COLUMNS:
            if isinstance(row.get(column), str):
                row[column] = msgspec.json.decode(row[column])
    return found
