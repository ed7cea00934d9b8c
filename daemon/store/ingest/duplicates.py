"""Events that come again at any time: found among everything stored, not in a window.

A replay or an import may bring what was ingested years ago, so the window by `ingested_at` that
bounds the live sources' dedupe says nothing here. The search runs before the transaction and on
the reader, so that live commits do not wait for it; what is stored meanwhile is later than `until`,
and the transaction compares with that.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from adaptd.daemon.domain.ingest import Address, Decoded
from adaptd.daemon.store.database.database import Connection, arrow, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.ingest.refused_rows import addresses

_SQL = statements("copies")
_EVENTS = statements("events")
_PLACE = ("topic", "partition", "position", "batch_index", "bytes")


class Copies(NamedTuple):
    """Rows left out as stored already, and the time up to which the store was searched."""

    addresses: frozenset[Address]
    until: datetime | None


NO_COPIES = Copies(frozenset(), None)


def find_copies(cursor: Connection, decoded: Decoded) -> tuple[Decoded, Copies]:
    """The chunk without what is stored. Times first: what is committed in between is later."""
    until = rows(cursor, _EVENTS["newest_time"])[0]["newest"]
    interactions, again = _part(
        cursor, "stored_interactions", decoded.interactions, ("id", "tenant", "trusted")
    )
    feedback, said_again = _part(
        cursor, "stored_feedback", decoded.feedback, ("id", "interaction", "tenant", "trusted")
    )
    letters, _ = _part(cursor, "stored_letters", decoded.dead_letters, _PLACE)
    rest = Decoded(decoded.source, interactions, feedback, letters, decoded.spans)
    return rest, Copies(again | said_again, until)


def _part(
    cursor: Connection, statement: str, table: pa.Table, key: Sequence[str]
) -> tuple[pa.Table, frozenset[Address]]:
    """The rows that are not stored, and the addresses of the others."""
    if table.num_rows == 0:
        return table, frozenset()
    row = pa.array(range(table.num_rows), pa.int64())
    cursor.register("chunk_keys", table.select(key).append_column("row", row))
    try:
        found = arrow(cursor, _SQL[statement], **_bounds(table, key))["row"].to_numpy()
    finally:
        cursor.unregister("chunk_keys")
    stored = np.zeros(table.num_rows, dtype=bool)
    stored[found] = True
    return table.filter(pa.array(~stored)), addresses(table.filter(pa.array(stored)))


def _bounds(table: pa.Table, key: Sequence[str]) -> dict[str, str]:
    """With an id's range zone maps can prune."""
    if "id" not in key:
        return {}
    ids = table["id"].to_pylist()
    return {"low": min(ids), "high": max(ids)}
