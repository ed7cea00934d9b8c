"""What triggers look at: which crons fired and wait, and how much feedback there is."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec

from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements

_SQL = statements("triggers")


class CronState(msgspec.Struct, frozen=True, kw_only=True):
    """One cron of one alias. `fired_at` is its last fire, or when it was first seen.

    `waiting`: no run has started since that fire.
    """

    job: str
    fired_at: datetime
    waiting: bool


class SnapshotMark(msgspec.Struct, frozen=True, kw_only=True):
    """What the newest snapshot of an alias had seen, and under which policy."""

    as_of: datetime
    policy_version: int


class JudgedAnswers(msgspec.Struct, frozen=True, kw_only=True):
    total: int
    negative: int


class TriggerStore:
    """Crons are written here before anything is started for them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def crons(self, model: str) -> list[CronState]:
        return [CronState(**row) for row in await self._read("crons_of", model=model)]

    async def begin_cron(self, model: str, job: str, *, now: datetime) -> None:
        """Count a cron's fires from now on. Safe to repeat: one that is known keeps its time."""
        await self._write("begin_cron", model=model, job=job, now=now)

    async def fire_cron(self, model: str, job: str, *, now: datetime) -> None:
        """Let a cron wait for a run, its missed fires with it."""
        await self._write("fire_cron", model=model, job=job, now=now)

    async def settle_crons(self, model: str) -> None:
        """A run has started: nothing of the alias waits any more."""
        await self._write("settle_crons", model=model)

    async def forget_crons(self, model: str, *, kept: Collection[str]) -> None:
        """Drop the crons that the policy no longer has."""
        await self._write("forget_crons", model=model, kept=list(kept))

    async def cron_models(self) -> list[str]:
        """Every alias that has or had a cron."""
        return [row["model"] for row in await self._read("cron_models")]

    async def newest_snapshot(self, model: str) -> SnapshotMark | None:
        """The newest that a version came of, or the third in a row that none did."""
        found = await self._read("newest_snapshot", model=model)
        return SnapshotMark(**found[0]) if found else None

    async def count_new(
        self, model: str, *, since: datetime, until: datetime, kinds: Collection[str]
    ) -> int:
        """Answers whose feedback became known in (since, until]: a cheap count, no policy SQL."""
        kind_flags = {"corrections": "correction" in kinds, "ratings": "rating" in kinds}
        window = {"model": model, "since": since, "until": until}
        return (await self._read("count_new", **window, **kind_flags))[0]["answers"]

    async def count_judged(self, model: str, *, since: datetime) -> JudgedAnswers:
        """Answers stored after `since` that were rated or corrected, and how many badly."""
        return JudgedAnswers(**(await self._read("count_judged", model=model, since=since))[0])

    async def _read(self, name: str, **values: Any) -> list[dict[str, Any]]:
        return await self._database.read(lambda cursor: rows(cursor, _SQL[name], **values))

    async def _write(self, name: str, **values: Any) -> None:
        def work(cursor: Connection) -> None:
            cursor.execute(_SQL[name], values)

        await self._database.write(work)
