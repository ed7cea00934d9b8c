"""Training runs: one row each, moved through its states with a reason."""

import secrets
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from adaptd.daemon.domain.states import RunState
from adaptd.daemon.domain.transitions import check_run_move
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.lifecycle.transitions import record_transition
from adaptd.daemon.wire.errors import RefusedError

_SQL = statements("runs")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to make a better adapter for an alias.

    `reason` says why it is in its present state; of a failed run it opens with the cause
    (`nan: …`). `attempts` counts training children started, `stalled` those since one got
    further than all before it. `micro_batch` is set only where an
    out-of-memory lowered it. `progress` is the trainer's last line. `started_at` is when it left
    the queue.
    """

    run_id: str
    model: str
    policy_version: int
    state: RunState
    reason: str | None = None
    trigger: dict[str, Any] = {}
    snapshot_id: str | None = None
    start_from: str | None = None
    directory: str | None = None
    adapter: str | None = None
    attempts: int = 0
    stalled: int = 0
    micro_batch: int | None = None
    pid: int | None = None
    progress: dict[str, Any] | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class _Why(NamedTuple):
    actor: str
    reason: str
    evidence: Any
    now: datetime


class RunStore:
    """Runs and their states. An alias has at most one run that is not final."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        model: str,
        *,
        policy_version: int,
        trigger: dict[str, Any],
        start_from: str | None,
        actor: str,
        now: datetime,
    ) -> Run:
        """Queue a run. `start_from` is the version to continue from; None is the base.

        Raises:
            RefusedError: the alias has a run that is not final.
        """
        run_id = f"run-{secrets.token_hex(5)}"
        values = {
            "run_id": run_id,
            "model": model,
            "policy_version": policy_version,
            "trigger": msgspec.json.encode(trigger).decode(),
            "start_from": start_from,
            "now": now,
        }
        return await self._database.write(lambda c: _create(c, values, actor))

    async def get(self, run_id: str) -> Run:
        """Raises RefusedError where there is no such run."""
        return await self._database.read(lambda c: _get(c, run_id))

    async def list(
        self, model: str | None = None, limit: int = 50, *, seen: Collection[str] | None = None
    ) -> list[Run]:
        """Newest first. `seen` leaves out all aliases but those; None: none is left out."""
        only = None if seen is None else sorted(seen)
        return await self._many("list_runs", model=model, limit=limit, seen=only)

    async def active(self, model: str) -> Run | None:
        """The alias's run that is not final."""
        return _first(await self._many("active_run", model=model))

    async def last_finished(self, model: str) -> Run | None:
        """The alias's run that became final last: cooldown counts from its `finished_at`."""
        return _first(await self._many("last_finished_run", model=model))

    async def in_state(self, state: RunState) -> "list[Run]":
        """Oldest first."""
        return await self._many("runs_in_state", state=state)

    async def claim(
        self, state: RunState, to: RunState, *, actor: str, now: datetime
    ) -> Run | None:
        """Move the oldest run in `state` to `to` and return it; None where there is none.

        A run in `building` is claimed only once its snapshot is set.
        """
        why = _Why(actor, "claimed", None, now)
        return await self._database.write(lambda c: _claim(c, state, to, why))

    async def set_snapshot(self, run_id: str, snapshot_id: str) -> None:
        await self._set("set_snapshot", run_id, snapshot_id=snapshot_id)

    async def set_progress(self, run_id: str, progress: dict[str, Any]) -> None:
        text = msgspec.json.encode(progress).decode()
        await self._set("set_progress", run_id, progress=text)

    async def set_process(self, run_id: str, pid: int | None, directory: Path | str) -> None:
        await self._set("set_process", run_id, pid=pid, directory=str(directory))

    async def begin_attempt(
        self, run_id: str, *, directory: Path | str, micro_batch: int | None
    ) -> Run:
        """Count one more training child, before it is started: a crash loop is bounded too."""
        values = {"directory": str(directory), "micro_batch": micro_batch}
        await self._set("begin_attempt", run_id, **values)
        return await self.get(run_id)

    async def move(
        self,
        run_id: str,
        to: RunState,
        *,
        actor: str,
        reason: str,
        evidence: Any = None,
        now: datetime,
    ) -> Run:
        """Change the state and record why, in one transaction. A repeat changes nothing.

        Raises:
            RefusedError: there is no such run, or its state does not allow this one.
        """
        why = _Why(actor, reason, evidence, now)
        return await self._database.write(lambda c: _move(c, _get(c, run_id), to, why))

    async def _many(self, statement: str, **values: Any) -> "list[Run]":
        return await self._database.read(lambda c: _runs(c, statement, **values))

    async def _set(self, statement: str, run_id: str, **values: Any) -> None:
        def work(cursor: Connection) -> None:
            cursor.execute(_SQL[statement], {"run_id": run_id, **values})

        await self._database.write(work)


def move_run(
    cursor: Connection,
    run_id: str,
    to: RunState,
    *,
    actor: str,
    reason: str,
    evidence: Any = None,
    now: datetime,
) -> Run:
    """`RunStore.move` inside a transaction of the caller's, where several rows change together."""
    return _move(cursor, _get(cursor, run_id), to, _Why(actor, reason, evidence, now))


def _create(cursor: Connection, values: dict[str, Any], actor: str) -> Run:
    model = values["model"]
    if active := _first(_runs(cursor, "active_run", model=model)):
        raise RefusedError(
            f"model {model}",
            f"run {active.run_id} is still {active.state}",
            f"Wait for it or stop it: adaptd runs cancel {active.run_id}",
        )
    cursor.execute(_SQL["add_run"], values)
    trigger = msgspec.json.decode(values["trigger"])
    record_transition(
        cursor,
        "run",
        values["run_id"],
        before=None,
        after=RunState.QUEUED,
        actor=actor,
        reason="triggered",
        evidence=trigger,
    )
    return _get(cursor, values["run_id"])


def _claim(cursor: Connection, state: RunState, to: RunState, why: _Why) -> Run | None:
    run = _first(_runs(cursor, "claimable_run", state=state))
    return run and _move(cursor, run, to, why)


def _move(cursor: Connection, run: Run, to: RunState, why: _Why) -> Run:
    if run.state == to:
        return run
    check_run_move(run.run_id, run.state, to)
    values = {"run_id": run.run_id, "state": to, "reason": why.reason, "final": to.is_final}
    cursor.execute(_SQL["move_run"], values | {"now": why.now})
    record_transition(
        cursor,
        "run",
        run.run_id,
        before=run.state,
        after=to,
        actor=why.actor,
        reason=why.reason,
        evidence=why.evidence,
    )
    return _get(cursor, run.run_id)


def _get(cursor: Connection, run_id: str) -> Run:
    if run := _first(_runs(cursor, "get_run", run_id=run_id)):
        return run
    raise RefusedError(f"run {run_id}", "there is no such run", "List them: adaptd runs")


def _runs(cursor: Connection, statement: str, **values: Any) -> list[Run]:
    return [_run(row) for row in rows(cursor, _SQL[statement], **values)]


def _run(row: dict[str, Any]) -> Run:
    decoded = {key: row[key] and msgspec.json.decode(row[key]) for key in ("trigger", "progress")}
    return msgspec.convert(row | decoded, Run)


def _first(found: list[Run]) -> Run | None:
    return found[0] if found else None
