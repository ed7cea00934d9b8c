"""Adapter versions: immutable files (D1), one row each, and their states."""

from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from adaptd.daemon.domain.states import AdapterState
from adaptd.daemon.domain.transitions import check_adapter_move
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.lifecycle.transitions import record_transition
from adaptd.daemon.wire.errors import RefusedError
from adaptd.daemon.wire.routes import version_name

_SQL = statements("adapters")
# Whoever sees a number is not the one who issues the next: each stage has its own AdapterStore.
_FLOORS: WeakKeyDictionary[Database, dict[str, int]] = WeakKeyDictionary()


class AdapterRow(msgspec.Struct, frozen=True, kw_only=True):
    """One version. `parent` is the version its weights were continued from; None is the base.

    `tainted_by` is the erasure of a person it learnt from. Such a version serves where it serves
    until it is replaced, and is of no use for anything else.
    """

    name: str
    model: str
    number: int
    content_hash: str
    path: str
    base_digest: str
    state: AdapterState
    run_id: str | None = None
    parent: str | None = None
    snapshot_id: str | None = None
    created_at: datetime
    tainted_by: str | None = None


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What a new version is and where it came from. A run has at most one version."""

    content_hash: str
    base_digest: str
    run_id: str | None = None
    parent: str | None = None
    snapshot_id: str | None = None


class AdapterStore:
    """Versions and their states. A number is never issued twice for an alias."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._floors = _FLOORS.setdefault(database, {})

    def raise_floor(self, model: str, number: int) -> None:
        """Never issue `number` or one below it: it was seen on a gateway or a server (D1).

        Kept in memory, for every AdapterStore on this database: say it again after each start.
        """
        self._floors[model] = max(number, self._floors.get(model, 0))

    async def next_number(self, model: str, found: int = 0) -> int:
        """The number after any in the table, in `found` (highest seen in folders) and the floor."""
        return await self._database.read(lambda c: self._next_number(c, model, found))

    async def add(
        self,
        model: str,
        origin: Origin,
        *,
        folder: Path,
        found: int = 0,
        actor: str,
        reason: str = "trained",
        now: datetime,
    ) -> AdapterRow:
        """Number and name a new version, whose files belong in `folder`/name, as a candidate.

        `found` is the highest number of the alias seen in folders. With a run the run's `adapter`
        is set in the same transaction, and a repeat returns the row there is.
        """

        def work(cursor: Connection) -> AdapterRow:
            run_id = origin.run_id
            if run_id and (known := _first(_adapters(cursor, "adapter_of_run", run_id=run_id))):
                return known
            number = self._next_number(cursor, model, found)
            name = version_name(model, number, origin.content_hash)
            place = {"model": model, "number": number, "name": name, "path": str(folder / name)}
            return _add(cursor, origin, place | {"now": now}, actor, reason)

        return await self._database.write(work)

    async def get(self, name: str) -> AdapterRow:
        """Raises RefusedError where there is no such version."""
        return await self._database.read(lambda c: _get(c, name))

    async def list(
        self, model: str | None = None, *, seen: Collection[str] | None = None
    ) -> list[AdapterRow]:
        """Newest first. `seen` leaves out all aliases but those; None: none is left out."""
        values = {"model": model, "seen": None if seen is None else sorted(seen)}
        return await self._database.read(lambda c: _adapters(c, "list_adapters", **values))

    async def move(
        self,
        name: str,
        to: AdapterState,
        *,
        actor: str,
        reason: str,
        evidence: Any = None,
        now: datetime,
    ) -> AdapterRow:
        """Change the state and record why, in one transaction. A repeat changes nothing.

        `now` is there for one signature with RunStore.move: this row keeps no time of its own.

        Raises:
            RefusedError: there is no such version, or its state does not allow this one.
        """
        return await self._database.write(
            lambda c: move_adapter(c, name, to, actor=actor, reason=reason, evidence=evidence)
        )

    def _next_number(self, cursor: Connection, model: str, found: int) -> int:
        stored = rows(cursor, _SQL["last_number"], model=model)[0]["number"]
        return max(stored, found, self._floors.get(model, 0)) + 1


def move_adapter(
    cursor: Connection,
    name: str,
    to: AdapterState,
    *,
    actor: str,
    reason: str,
    evidence: Any = None,
) -> AdapterRow:
    """The same inside a transaction of the caller's, where several rows must change together."""
    row = _get(cursor, name)
    if row.state == to:
        return row
    check_adapter_move(name, row.state, to)
    cursor.execute(_SQL["move_adapter"], {"name": name, "state": to})
    record_transition(
        cursor,
        "adapter",
        name,
        before=row.state,
        after=to,
        actor=actor,
        reason=reason,
        evidence=evidence,
    )
    return _get(cursor, name)


def _add(
    cursor: Connection, origin: Origin, place: dict[str, Any], actor: str, reason: str
) -> AdapterRow:
    lineage = msgspec.structs.asdict(origin)
    cursor.execute(_SQL["add_adapter"], lineage | place)
    if origin.run_id:
        cursor.execute(_SQL["set_run_adapter"], {"name": place["name"], "run_id": origin.run_id})
    record_transition(
        cursor,
        "adapter",
        place["name"],
        before=None,
        after=AdapterState.CANDIDATE,
        actor=actor,
        reason=reason,
        evidence=lineage,
    )
    return _get(cursor, place["name"])


def _get(cursor: Connection, name: str) -> AdapterRow:
    if row := _first(_adapters(cursor, "get_adapter", name=name)):
        return row
    raise RefusedError(f"adapter {name}", "there is no such version", "List them: adaptd adapters")


def _adapters(cursor: Connection, statement: str, **values: Any) -> list[AdapterRow]:
    return [msgspec.convert(row, AdapterRow) for row in rows(cursor, _SQL[statement], **values)]


def _first(found: list[AdapterRow]) -> AdapterRow | None:
    return found[0] if found else None
