"""Whether this store came back from a backup, and what has to be known before it may act."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.lifecycle.rollouts import withdraw_active
from adaptd.daemon.store.lifecycle.transitions import record_transition

_SQL = statements("restores")
_SUBJECT = "store"


class Restore(msgspec.Struct, frozen=True, kw_only=True):
    """One restore. Not released: nothing moves yet. `as_of`: all stored by then is in it."""

    restored_at: datetime
    as_of: datetime
    source: str
    offsets: list[dict[str, Any]]
    caught_up_at: datetime | None = None
    released_at: datetime | None = None
    released_by: str | None = None
    reason: str | None = None
    findings: list[Any] | None = None


class RestoreStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self) -> Restore | None:
        """The last restore of this store, released or not."""
        return await self._database.read(_newest)

    async def raise_floors(self, floors: Mapping[str, int]) -> None:
        """Never issue these version numbers, or lower ones, by alias (D1). Outlives a restart."""

        def work(cursor: Connection) -> None:
            for model, number in floors.items():
                cursor.execute(_SQL["raise_floor"], {"model": model, "number": number})

        if floors:
            await self._database.write(work)

    async def release(
        self, *, actor: str, reason: str, findings: list[Any], withdraw: bool, now: datetime
    ) -> Restore | None:
        """Let the store act. Safe to repeat; None where it never was restored.

        `withdraw`: its rollouts wait for a person, their traffic on live.
        """

        def work(cursor: Connection) -> Restore | None:
            found = _newest(cursor)
            if found is None or found.released_at is not None:
                return found
            values = {"now": now, "actor": actor, "reason": reason, "findings": _json(findings)}
            cursor.execute(_SQL["release_restores"], values)
            if withdraw:
                withdraw_active(cursor, actor=actor, reason=f"store restored: {reason}")
            record_transition(
                cursor,
                "ingest",
                _SUBJECT,
                before="restored",
                after="released",
                actor=actor,
                reason=reason,
                evidence={"findings": findings, "as_of": found.as_of},
            )
            return _newest(cursor)

        return await self._database.write(work)

    async def set_caught_up(self, *, now: datetime) -> None:
        """What the log had when it was first compared is stored again."""
        await self._database.write(lambda c: c.execute(_SQL["set_caught_up"], {"now": now}))


def add_restore(cursor: Connection, restore: Restore) -> None:
    """Mark a store that is not in use yet."""
    values = {
        "now": restore.restored_at,
        "as_of": restore.as_of,
        "source": restore.source,
        "offsets": _json(restore.offsets),
    }
    cursor.execute(_SQL["add_restore"], values)
    record_transition(
        cursor,
        "ingest",
        _SUBJECT,
        before=None,
        after="restored",
        actor="restore",
        reason=f"restored from {restore.source}",
        evidence={"as_of": restore.as_of},
    )


def look_back(cursor: Connection) -> datetime | None:
    """Up to when rows of before a restore may come again; None where none can any more.

    The dedupe window reaches back from there while the log is read again: an event whose first copy
    is in the backup and whose second came after it would else be counted twice.
    """
    return rows(cursor, _SQL["look_back"])[0]["as_of"]


def _newest(cursor: Connection) -> Restore | None:
    found = rows(cursor, _SQL["newest_restore"])
    if not found:
        return None
    row = found[0]
    decoded = {name: msgspec.json.decode(row[name] or "null") for name in ("offsets", "findings")}
    return msgspec.convert(row | decoded, Restore)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
