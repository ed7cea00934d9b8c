"""Facts for triggers: crons that fired and wait, and counts of feedback."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from adaptd.daemon.domain.triggers import CronState, JudgedAnswers, SnapshotMark
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements

_SQL = statements("triggers")


class TriggerStore:
    """Crons, written here before anything starts for them, and counts of feedback."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def crons(self, model: str) -> list[CronState]:
        return [CronState(**row) for row in await self._read_rows("crons_of", model=model)]

    async def begin_cron(self, model: str, job: str, *, now: datetime) -> None:
        """Count a cron's fires from now on. Safe to repeat: a known cron keeps its time."""
        await self._run_statement("begin_cron", model=model, job=job, now=now)

    async def fire_cron(self, model: str, job: str, *, now: datetime) -> None:
        """Let a cron wait for a run, with the fires it missed."""
        await self._run_statement("fire_cron", model=model, job=job, now=now)

    async def settle_crons(self, model: str) -> None:
        """Note that a run has started: no cron of the alias waits any longer."""
        await self._run_statement("settle_crons", model=model)

    async def drop_crons(self, model: str, *, kept: Collection[str]) -> None:
        """Drop the crons that the policy no longer has."""
        await self._run_statement("drop_crons", model=model, kept=list(kept))

    async def cron_models(self) -> list[str]:
        """Return every alias that has or had a cron."""
        return [row["model"] for row in await self._read_rows("cron_models")]

    async def newest_snapshot(self, model: str) -> SnapshotMark | None:
        """Return the newest snapshot that led to a version, or the third in a row that did not."""
        found = await self._read_rows("newest_snapshot", model=model)
        return SnapshotMark(**found[0]) if found else None

    async def count_new(
        self, model: str, *, since: datetime, until: datetime, kinds: Collection[str]
    ) -> int:
        """Count answers whose feedback became known in (since, until], without policy SQL."""
        kind_flags = {"corrections": "correction" in kinds, "ratings": "rating" in kinds}
        window = {"model": model, "since": since, "until": until}
        return (await self._read_rows("count_new", **window, **kind_flags))[0]["answers"]

    async def count_judged(self, model: str, *, since: datetime) -> JudgedAnswers:
        """Count the answers stored after `since` that were rated or corrected."""
        return JudgedAnswers(**(await self._read_rows("count_judged", model=model, since=since))[0])

    async def _read_rows(self, name: str, **values: Any) -> list[dict[str, Any]]:
        return await self._database.read(lambda cursor: rows(cursor, _SQL[name], **values))

    async def _run_statement(self, name: str, **values: Any) -> None:
        def work(cursor: Connection) -> None:
            cursor.execute(_SQL[name], values)

        await self._database.write(work)
