"""Rollouts: one row each. A decision changes rollouts, versions and routes in one transaction."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec

from adaptd.daemon.domain.rollouts import Rollout
from adaptd.daemon.domain.states import AdapterState, RolloutState
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.lifecycle.adapters import move_adapter
from adaptd.daemon.store.lifecycle.routes import add_table
from adaptd.daemon.store.lifecycle.transitions import record_transition
from adaptd.daemon.wire.errors import RefusedError
from adaptd.daemon.wire.routes import RouteTable

_SQL = statements("rollouts")
_JSON = ("frozen", "evidence", "waivers")


class RolloutMove(msgspec.Struct, frozen=True):
    """A rollout as it was and as it becomes."""

    before: Rollout
    after: Rollout


class AdapterMove(msgspec.Struct, frozen=True):
    name: str
    to: AdapterState


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One decision and all that it changes, with who or what made it, why and on what evidence.

    The evidence is also merged into that of the rollouts.
    """

    rollouts: list[RolloutMove] = []
    adapters: list[AdapterMove] = []
    table: RouteTable | None = None
    actor: str
    reason: str
    evidence: dict[str, Any] = {}


class RolloutStore:
    """Rollouts and their states. An alias has at most one that is neither live nor final."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, rollout: Rollout, *, actor: str, reason: str) -> Rollout:
        """Keep a new rollout.

        Raises:
            RefusedError: the alias has a rollout that is neither live nor final.
        """
        return await self._database.write(lambda c: _create(c, rollout, actor, reason))

    async def get(self, rollout_id: str) -> Rollout:
        """Raises RefusedError where there is no such rollout."""
        return await self._database.read(lambda c: _get(c, rollout_id))

    async def list(
        self, model: str | None = None, limit: int = 50, *, seen: Collection[str] | None = None
    ) -> list[Rollout]:
        """Newest first. `seen` leaves out all aliases but those; None: none is left out."""
        only = None if seen is None else sorted(seen)
        return await self._many("list_rollouts", model=model, limit=limit, seen=only)

    async def unfinished(self) -> "list[Rollout]":
        """All that are not final, live ones too, oldest first."""
        return await self._many("unfinished_rollouts")

    async def active(self, model: str) -> Rollout | None:
        """The alias's rollout that is neither live nor final."""
        found = await self.unfinished()
        return next((r for r in found if r.model == model and is_active(r)), None)

    async def of_candidate(self, candidate: str) -> "list[Rollout]":
        """Newest first."""
        return await self._many("rollouts_of", candidate=candidate)

    async def apply(self, change: Change, *, now: datetime) -> None:
        """Write one decision in one transaction, each state with the row that explains it.

        Raises:
            RefusedError: a rollout is no longer as it was, or a version may not take its new state.
        """
        await self._database.write(lambda c: _apply(c, change, now))

    async def record_evidence(self, rollout_id: str, evidence: dict[str, Any]) -> None:
        """Merge what the guard saw, or when a table was published, into the rollout's evidence."""

        def work(cursor: Connection) -> None:
            merged = _get(cursor, rollout_id).evidence | evidence
            text = msgspec.json.encode(merged).decode()
            cursor.execute(_SQL["set_evidence"], {"rollout_id": rollout_id, "evidence": text})

        await self._database.write(work)

    async def _many(self, statement: str, **values: Any) -> "list[Rollout]":
        return await self._database.read(lambda c: _rollouts(c, statement, **values))


def withdraw_active(cursor: Connection, *, actor: str, reason: str) -> None:
    """Pause every rollout that is on its way, its traffic on live, inside the caller's change."""
    for rollout in _rollouts(cursor, "unfinished_rollouts"):
        if is_active(rollout):
            after = msgspec.structs.replace(rollout, paused=reason, withdrawn=True)
            _put(cursor, after)
            _record(cursor, rollout, after, actor=actor, reason=reason, evidence=None)


def is_active(rollout: Rollout) -> bool:
    """True while its version is on its way: neither live nor final."""
    return not rollout.state.is_final and rollout.state != RolloutState.LIVE


def label(rollout: Rollout) -> str:
    """The state in words, as transitions show it."""
    state = f"step {rollout.step}" if rollout.state == RolloutState.STEP else str(rollout.state)
    return f"{state} (paused)" if rollout.paused and not rollout.state.is_final else state


def _create(cursor: Connection, rollout: Rollout, actor: str, reason: str) -> Rollout:
    for other in _rollouts(cursor, "unfinished_rollouts"):
        if other.model == rollout.model and is_active(other):
            raise RefusedError(
                f"model {rollout.model}",
                f"rollout {other.rollout_id} of {other.candidate} is still {label(other)}",
                f"Wait for it or stop it: adaptd rollout abort {other.rollout_id}",
            )
    _put(cursor, rollout)
    evidence = {"candidate": rollout.candidate, "previous": rollout.previous}
    _record(cursor, None, rollout, actor=actor, reason=reason, evidence=evidence)
    return rollout


def _apply(cursor: Connection, change: Change, now: datetime) -> None:
    why = {"actor": change.actor, "reason": change.reason, "evidence": change.evidence or None}
    for move in change.rollouts:
        found = _get(cursor, move.before.rollout_id)
        _check_unchanged(found, move.before)
        evidence = found.evidence | change.evidence
        _put(cursor, msgspec.structs.replace(move.after, evidence=evidence))
        _record(cursor, move.before, move.after, **why)
    for adapter in change.adapters:
        move_adapter(cursor, adapter.name, adapter.to, **why)
    if change.table is not None:
        add_table(cursor, change.table, change.reason, now)


def _check_unchanged(found: Rollout, before: Rollout) -> None:
    """Evidence may have grown meanwhile; nothing else may have changed."""
    if msgspec.structs.replace(found, evidence={}) != msgspec.structs.replace(before, evidence={}):
        raise RefusedError(
            f"rollout {before.rollout_id}",
            f"it is {label(found)} by now, not {label(before)}",
            "Look again: adaptd status",
        )


def _record(
    cursor: Connection,
    before: Rollout | None,
    after: Rollout,
    *,
    actor: str,
    reason: str,
    evidence: Any,
) -> None:
    record_transition(
        cursor,
        "rollout",
        after.rollout_id,
        before=before and label(before),
        after=label(after),
        actor=actor,
        reason=reason,
        evidence=evidence,
    )


def _put(cursor: Connection, rollout: Rollout) -> None:
    values = msgspec.structs.asdict(rollout)
    values |= {key: msgspec.json.encode(values[key]).decode() for key in _JSON}
    cursor.execute(_SQL["put_rollout"], values)


def _get(cursor: Connection, rollout_id: str) -> Rollout:
    if found := _rollouts(cursor, "get_rollout", rollout_id=rollout_id):
        return found[0]
    raise RefusedError(
        f"rollout {rollout_id}", "there is no such rollout", "List them: adaptd rollout list"
    )


def _rollouts(cursor: Connection, statement: str, **values: Any) -> list[Rollout]:
    return [_rollout(row) for row in rows(cursor, _SQL[statement], **values)]


def _rollout(row: dict[str, Any]) -> Rollout:
    decoded = {key: msgspec.json.decode(row[key] or "null") for key in _JSON}
    decoded = {key: value for key, value in decoded.items() if value is not None}
    kept = {key: value for key, value in row.items() if key not in _JSON}
    return msgspec.convert(kept | decoded, Rollout)
