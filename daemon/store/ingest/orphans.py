"""How much feedback waits for an interaction that nobody has seen, counted in the background."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from adaptd.daemon.store.database.database import Connection, Database, arrow, rows
from adaptd.daemon.store.database.statements import statements

_SQL = statements("orphans")
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class OrphanCount:
    """Keeps the count that `SurfaceStore` shows, at most `every_s` behind.

    Each look costs one pass over the interactions' ids (0.3 s for 10 million) and only what is new
    of everything else; it is left out while nothing is new.
    """

    def __init__(self, database: Database, *, every_s: float = 30) -> None:
        self._database = database
        self._every_s = every_s

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._every_s)

    async def look(self) -> None:
        """Bring the count up to what is stored now. Safe to repeat."""
        mark = await self._database.read(lambda cursor: rows(cursor, _SQL["orphan_mark"])[0])
        fewer = mark["still_there"] != mark["feedback"]  # erased, or past retention: count anew
        since, until = (_BEGINNING if fewer else mark["since"]), mark["until"]
        if until == mark["since"] and not fewer:
            return
        found = await self._database.read(
            lambda cursor: arrow(cursor, _SQL["new_orphans"], since=since, until=until)
        )
        await self._database.write(
            lambda cursor: _write(cursor, found, mark, since=since, until=until)
        )


def _write(
    cursor: Connection, found: pa.Table, mark: dict[str, Any], *, since: datetime, until: datetime
) -> None:
    if since == _BEGINNING:
        cursor.execute(_SQL["forget_orphans"])
        cursor.execute(_SQL["count_unscaled"])
    else:
        cursor.execute(_SQL["drop_found"], {"since": since, "until": until})
    cursor.register("orphans", found)
    try:
        cursor.execute(_SQL["add_orphans"])
    finally:
        cursor.unregister("orphans")
    cursor.execute(_SQL["move_mark"], {"since": mark["since"], "until": until})
