"""Swap receipts: one per version and process of a host."""

from typing import Any

import msgspec

from adaptd.daemon.domain.receipts import Receipt
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements

_SQL = statements("receipts")


class ReceiptStore:
    """Receipts, kept for good. The first one of a (version, instance) stays."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, receipt: Receipt) -> Receipt:
        """Keep a receipt and return the one that counts. Safe to repeat."""
        values = msgspec.structs.asdict(receipt)
        values["report"] = msgspec.json.encode(receipt.report).decode()

        def work(cursor: Connection) -> Receipt:
            cursor.execute(_SQL["add_receipt"], values)
            key = {"adapter": receipt.adapter, "instance": receipt.instance}
            return _receipts(cursor, "get_receipt", **key)[0]

        return await self._database.write(work)

    async def get(self, adapter: str, instance: str) -> Receipt | None:
        found = await self._database.read(
            lambda c: _receipts(c, "get_receipt", adapter=adapter, instance=instance)
        )
        return found[0] if found else None

    async def passed_on(self, instance: str) -> frozenset[str]:
        """The versions that may take traffic on this process of the host."""
        found = await self._database.read(lambda c: rows(c, _SQL["passed_on"], instance=instance))
        return frozenset(row["adapter"] for row in found)

    async def list(self, adapter: str) -> list[Receipt]:
        """Newest first."""
        return await self._database.read(lambda c: _receipts(c, "list_receipts", adapter=adapter))


def _receipts(cursor: Connection, statement: str, **values: Any) -> list[Receipt]:
    found = rows(cursor, _SQL[statement], **values)
    return [
        msgspec.convert(row | {"report": msgspec.json.decode(row["report"] or "{}")}, Receipt)
        for row in found
    ]
