"""Rollouts: one row each. One transaction changes rollouts, versions and routes together."""

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
# As SQL takes them.
_FINAL_STATES = [state.value for state in RolloutState if state.is_final]
ACTIVE_STATES = [s.value for s in RolloutState if not s.is_final and s is not RolloutState.LIVE]


class RolloutMove(msgspec.Struct, frozen=True):
    """A rollout before and after a decision."""

    before: Rollout
    after: Rollout


class AdapterMove(msgspec.Struct, frozen=True):
    """A version and its next state."""

    name: str
    to: AdapterState


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One decision with everything it changes, its author, reason and evidence.

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
        return await self._database.write(lambda c: _create_rollout(c, rollout, actor, reason))

    async def get(self, rollout_id: str) -> Rollout:
        """Return a rollout. Raises RefusedError where there is no such rollout."""
        return await self._database.read(lambda c: _get_rollout(c, rollout_id))

    async def list(
        self, model: str | None = None, limit: int = 50, *, seen: Collection[str] | None = None
    ) -> list[Rollout]:
        """Return rollouts, newest first. `seen` limits them to those aliases; None: no limit."""
        only = None if seen is None else sorted(seen)
        return await self._list_rollouts("list_rollouts", model=model, limit=limit, seen=only)

    async def unfinished(self) -> "list[Rollout]":
        """Return all rollouts that are not final, live ones too, oldest first."""
        return await self._database.read(_unfinished_rollouts)

    async def active(self, model: str) -> Rollout | None:
        """Return the alias's rollout that is neither live nor final."""
        found = await self.unfinished()
        return next((r for r in found if r.model == model and is_active(r)), None)

    async def of_candidate(self, candidate: str) -> "list[Rollout]":
        """Return the rollouts of a version, newest first."""
        return await self._list_rollouts("rollouts_of", candidate=candidate)

    async def apply(self, change: Change, *, now: datetime) -> None:
        """Write one decision in one transaction, each state with the row that explains it.

        Raises:
            RefusedError: a rollout is no longer as it was, or a version may not take its new state.
        """
        await self._database.write(lambda c: _apply_change(c, change, now))

    async def record_evidence(self, rollout_id: str, evidence: dict[str, Any]) -> None:
        """Merge the guard's counts, or the time of a publication, into the rollout's evidence."""

        def work(cursor: Connection) -> None:
            merged = _get_rollout(cursor, rollout_id).evidence | evidence
            text = msgspec.json.encode(merged).decode()
            cursor.execute(_SQL["set_evidence"], {"rollout_id": rollout_id, "evidence": text})

        await self._database.write(work)

    async def _list_rollouts(self, statement: str, **values: Any) -> "list[Rollout]":
        return await self._database.read(lambda c: _read_rollouts(c, statement, **values))


def withdraw_active(cursor: Connection, *, actor: str, reason: str) -> None:
    """Pause every active rollout, its traffic on live, inside the caller's transaction."""
    for rollout in _unfinished_rollouts(cursor):
        if is_active(rollout):
            after = msgspec.structs.replace(rollout, paused=reason, withdrawn=True)
            _put_rollout(cursor, after)
            _record_move(cursor, rollout, after, actor=actor, reason=reason, evidence=None)


def is_active(rollout: Rollout) -> bool:
    """Say if a rollout is under way: neither live nor final."""
    return rollout.state in ACTIVE_STATES


def label(rollout: Rollout) -> str:
    """Return the state in words, as transitions show it."""
    state = f"step {rollout.step}" if rollout.state == RolloutState.STEP else str(rollout.state)
    return f"{state} (paused)" if rollout.paused and not rollout.state.is_final else state


def _create_rollout(cursor: Connection, rollout: Rollout, actor: str, reason: str) -> Rollout:
    for other in _unfinished_rollouts(cursor):
        if other.model == rollout.model and is_active(other):
            raise RefusedError(
                f"model {rollout.model}",
                f"rollout {other.rollout_id} of {other.candidate} is still {label(other)}",
                f"Wait for it or stop it: adaptd rollout abort {other.rollout_id}",
            )
    _put_rollout(cursor, rollout)
    evidence = {"candidate": rollout.candidate, "previous": rollout.previous}
    _record_move(cursor, None, rollout, actor=actor, reason=reason, evidence=evidence)
    return rollout


def _apply_change(cursor: Connection, change: Change, now: datetime) -> None:
    why = {"actor": change.actor, "reason": change.reason, "evidence": change.evidence or None}
    for move in change.rollouts:
        found = _get_rollout(cursor, move.before.rollout_id)
        _check_unchanged(found, move.before)
        evidence = found.evidence | change.evidence  # the guard may have added some meanwhile
        _put_rollout(cursor, msgspec.structs.replace(move.after, evidence=evidence))
        _record_move(cursor, move.before, move.after, **why)
    for adapter in change.adapters:
        move_adapter(cursor, adapter.name, adapter.to, **why)
    if change.table is not None:
        add_table(cursor, change.table, change.reason, now)


def _check_unchanged(found: Rollout, before: Rollout) -> None:
    # Evidence may have grown meanwhile.
    if msgspec.structs.replace(found, evidence={}) != msgspec.structs.replace(before, evidence={}):
        raise RefusedError(
            f"rollout {before.rollout_id}",
            f"it is {label(found)} by now, not {label(before)}",
            "Look again: adaptd status",
        )


def _record_move(
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


def _put_rollout(cursor: Connection, rollout: Rollout) -> None:
    values = msgspec.structs.asdict(rollout)
    values |= {key: msgspec.json.encode(values[key]).decode() for key in _JSON}
    cursor.execute(_SQL["put_rollout"], values)


def _get_rollout(cursor: Connection, rollout_id: str) -> Rollout:
    if found := _read_rollouts(cursor, "get_rollout", rollout_id=rollout_id):
        return found[0]
    raise RefusedError(
        f"rollout {rollout_id}", "there is no such rollout", "List them: adaptd rollout list"
    )


def _unfinished_rollouts(cursor: Connection) -> list[Rollout]:
    return _read_rollouts(cursor, "unfinished_rollouts", final=_FINAL_STATES)


def _read_rollouts(cursor: Connection, statement: str, **values: Any) -> list[Rollout]:
    return [_read_rollout(row) for row in rows(cursor, _SQL[statement], **values)]


def _read_rollout(row: dict[str, Any]) -> Rollout:
    decoded = {key: msgspec.json.decode(row[key] or "null") for key in _JSON}
    decoded = {key: value for key, value in decoded.items() if value is not None}
    kept = {key: value for key, value in row.items() if key not in _JSON}
    return msgspec.convert(kept | decoded, Rollout)
