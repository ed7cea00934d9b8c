"""Whether ingestion is halted, why, and who lifted it."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from adaptd.daemon.domain.ingest import Halt
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.ingest.sink import utc_now
from adaptd.daemon.store.lifecycle.transitions import record_transition

_SQL = statements("halts")


class HaltStore:
    """The HaltBook over DuckDB."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def current(self) -> Halt | None:
        """The halt in force."""
        return await self._database.read(_current)

    async def list(self, *, limit: int = 20) -> list[Halt]:
        """The newest first, lifted ones too."""
        found = await self._database.read(
            lambda cursor: rows(cursor, _SQL["list_halts"], limit=limit)
        )
        return [_halt(row) for row in found]

    async def record(self, reason: str, detail: Any) -> None:
        """Halt, unless already halted."""

        def work(cursor: Connection) -> None:
            if _current(cursor) is not None:
                return
            values = {
                "now": self._clock(),
                "reason": reason,
                "detail": msgspec.json.encode(detail).decode(),
            }
            cursor.execute(_SQL["add_halt"], values)
            record_transition(
                cursor,
                "ingest",
                "consumer",
                before="running",
                after="halted",
                actor="daemon",
                reason=reason,
                evidence=detail,
            )

        await self._database.write(work)

    async def note_end(self, reason: str) -> None:
        """Put on record why the process ends, without a halt: the next one reads on."""
        await self._database.write(
            lambda cursor: record_transition(
                cursor,
                "ingest",
                "consumer",
                before="running",
                after="ended",
                actor="daemon",
                reason=reason,
                evidence={},
            )
        )

    async def clear(self, *, actor: str, reason: str) -> bool:
        """Lift the halt in force; False where there is none."""

        def work(cursor: Connection) -> bool:
            if (halt := _current(cursor)) is None:
                return False
            cursor.execute(_SQL["clear_halts"], {"now": self._clock()})
            record_transition(
                cursor,
                "ingest",
                "consumer",
                before="halted",
                after="running",
                actor=actor,
                reason=reason,
                evidence={"halt": halt.reason},
            )
            return True

        return await self._database.write(work)


def _current(cursor: Connection) -> Halt | None:
    found = rows(cursor, _SQL["current_halt"])
    return _halt(found[0]) if found else None


def _halt(row: dict[str, Any]) -> Halt:
    return Halt(**row | {"detail": msgspec.json.decode(row["detail"] or "null")})
