"""What is older than the operator keeps it: rows out in batches, directories named."""

from datetime import datetime
from pathlib import Path
from typing import Literal

from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.examples.files import unseal

_SQL = statements("retention")
_TABLES = {
    "events": (("drop_feedback_of_old", "drop_old_interactions"), ("drop_old_feedback",)),
    "dead_letters": (("drop_old_dead_letters",),),
}

Kind = Literal["events", "dead_letters", "snapshots", "runs", "tombstones"]


class RetentionStore:
    """Ages count from the time of storing, not from the sender's clock."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def last_run(self, kind: Kind) -> datetime | None:
        """When it was last looked after."""
        found = await self._database.read(lambda c: rows(c, _SQL["last_run"], kind=kind))
        return found[0]["ran_at"] if found else None

    async def note_run(self, kind: Kind, removed: int, *, now: datetime) -> None:
        values = {"kind": kind, "removed": removed, "now": now}

        def work(cursor: Connection) -> None:
            cursor.execute(_SQL["note_run"], values)

        await self._database.write(work)

    async def drop_rows(self, kind: Kind, *, before: datetime, limit: int) -> int:
        """Take old rows out, `limit` a transaction, so that ingestion waits for one batch only.

        Returns how many there were. Their bytes leave with the next rewrite of the store.
        """
        removed = 0
        for statements_ in _TABLES.get(kind, ()):
            while gone := await self._database.write(
                lambda c, names=statements_: _drop(c, names, before, limit)
            ):
                removed += gone
        return removed

    async def directories(self, kind: Kind, *, before: datetime) -> list[Path]:
        """Directories of snapshots or runs that are old enough, whether they are still there."""
        statement = _SQL[f"old_{kind}"]
        found = await self._database.read(lambda c: rows(c, statement, before=before))
        return [Path(row["path"]) for row in found]


def _drop(cursor: Connection, names: tuple[str, ...], before: datetime, limit: int) -> int:
    """The last statement's rows are the ones that are counted."""
    gone = 0
    for name in names:
        found = cursor.execute(_SQL[name], {"before": before, "limit": limit}).fetchone()
        gone = found[0] if found else 0
    if gone and names != _TABLES["dead_letters"][0]:
        unseal(cursor)
    return gone
