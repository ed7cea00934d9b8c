"""Replays as they were asked for, and how far they are."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from adaptd.daemon.domain.replays import Replay, ReplayState, source_of
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.ingest.offsets import load_offsets
from adaptd.daemon.store.ingest.sink import utc_now
from adaptd.daemon.store.lifecycle.transitions import record_transition
from adaptd.daemon.wire.errors import RefusedError

_SQL = statements("replays")


class ReplayStore:
    """The ReplayBook over DuckDB."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def add(self, replay: Replay) -> None:
        values = {
            "replay_id": replay.replay_id,
            "state": replay.state.value,
            "asked": msgspec.json.encode(replay.asked).decode(),
            "ranges": msgspec.json.encode(replay.ranges).decode(),
            "actor": replay.actor,
            "reason": replay.reason,
            "created_at": replay.created_at,
        }

        def work(cursor: Connection) -> None:
            cursor.execute(_SQL["add_replay"], values)
            _record(cursor, replay.replay_id, None, replay.state, replay.actor, replay.reason)

        await self._database.write(work)

    async def next_running(self) -> Replay | None:
        """The oldest that is not finished."""

        def work(cursor: Connection) -> Replay | None:
            found = rows(cursor, _SQL["oldest_running"])
            return _load(cursor, replay_id=found[0]["replay_id"])[0] if found else None

        return await self._database.read(work)

    async def get(self, replay_id: str) -> Replay:
        """Raises RefusedError where there is none."""
        found = await self._database.read(lambda cursor: _load(cursor, replay_id=replay_id))
        if not found:
            raise _unknown(replay_id)
        return found[0]

    async def list(self, *, limit: int = 50) -> list[Replay]:
        """The newest first."""
        return await self._database.read(lambda cursor: _load(cursor, limit=limit))

    async def note(self, replay_id: str, problem: str | None) -> None:
        """Why it waits; None: it goes on."""
        values = {"replay_id": replay_id, "problem": problem}
        await self._database.write(lambda cursor: cursor.execute(_SQL["note_problem"], values))

    async def finish(
        self, replay_id: str, state: ReplayState, *, actor: str, problem: str | None = None
    ) -> bool:
        """End a running one; False where it has ended already."""

        def work(cursor: Connection) -> bool:
            found = _load(cursor, replay_id=replay_id)
            if not found:
                raise _unknown(replay_id)
            if found[0].state is not ReplayState.RUNNING:
                return False
            values = {
                "replay_id": replay_id,
                "state": state.value,
                "problem": problem,
                "now": self._clock(),
            }
            cursor.execute(_SQL["finish_replay"], values)
            _record(cursor, replay_id, ReplayState.RUNNING, state, actor, problem or state.value)
            return True

        return await self._database.write(work)


def _load(cursor: Connection, *, replay_id: str | None = None, limit: int = 1) -> list[Replay]:
    found = rows(cursor, _SQL["replays"], replay_id=replay_id, limit=limit)
    return [_replay(cursor, row) for row in found]


def _replay(cursor: Connection, row: dict[str, Any]) -> Replay:
    """With its progress: the offsets say it, so a killed process loses none of it."""
    row |= {name: msgspec.json.decode(row[name]) for name in ("asked", "ranges")}
    replay = msgspec.convert(row, Replay)
    stored = load_offsets(cursor, source_of(replay.replay_id))
    read = sum(
        min(stored[part.place].next_offset, part.end) - part.start
        for part in replay.ranges
        if part.place in stored
    )
    size = sum(part.end - part.start for part in replay.ranges)
    return msgspec.structs.replace(replay, read=read, size=size)


def _record(
    cursor: Connection,
    replay_id: str,
    before: ReplayState | None,
    after: ReplayState,
    actor: str,
    reason: str,
) -> None:
    record_transition(
        cursor, "replay", replay_id, before=before, after=after, actor=actor, reason=reason
    )


def _unknown(replay_id: str) -> RefusedError:
    return RefusedError(f"replay {replay_id}", "there is none", "List them: adaptd replay list")
