"""Every route table that was ever in force, by its epoch."""

from datetime import datetime

import msgspec

from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.wire.routes import RouteTable

_SQL = statements("routes")


class RouteStore:
    """Tables are written here before a gateway sees them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def current(self) -> RouteTable | None:
        """The table with the highest epoch; None before the first."""
        found = await self._database.read(lambda c: rows(c, _SQL["current_table"]))
        return msgspec.json.decode(found[0]["published"], type=RouteTable) if found else None

    async def add(self, table: RouteTable, *, reason: str, now: datetime) -> None:
        """Write a table. Its epoch must be new."""
        await self._database.write(lambda c: add_table(c, table, reason, now))


def add_table(cursor: Connection, table: RouteTable, reason: str, now: datetime) -> None:
    """The same inside a transaction of the caller's."""
    published = msgspec.json.encode(table).decode()
    values = {"epoch": table.epoch, "published": published, "reason": reason, "now": now}
    cursor.execute(_SQL["add_table"], values)
