"""Events that come again at any time, searched for among everything stored, not in a window.

A replay or an import may bring what was ingested years ago, so the window by `ingested_at` that
bounds the dedupe of live sources does not apply. The search runs before the transaction and on the
reader thread, so live commits do not wait for it. Whatever is stored meanwhile is later than
`until`, and the transaction compares with that. Stands alone: it runs outside the transaction.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import pyarrow as pa

from adaptd.daemon.domain.ingest import Address, Decoded
from adaptd.daemon.store.database.database import Connection, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.ingest.split import addresses_of, split_by_statement

_SQL = statements("copies")
_EVENTS = statements("events")
_PLACE = ("topic", "partition", "position", "batch_index", "bytes")


class Copies(NamedTuple):
    """Rows left out because they are stored, and the time up to which the store was searched."""

    addresses: frozenset[Address]
    until: datetime | None


NO_COPIES = Copies(frozenset(), None)


def find_copies(cursor: Connection, decoded: Decoded) -> tuple[Decoded, Copies]:
    """Return the chunk without the rows that are stored, and those."""
    # The time comes first: whatever is committed during the search is later than it.
    until = rows(cursor, _EVENTS["newest_time"])[0]["newest"]
    interactions, again = _drop_stored(
        cursor, "stored_interactions", decoded.interactions, ("id", "tenant", "trusted")
    )
    feedback, said_again = _drop_stored(
        cursor, "stored_feedback", decoded.feedback, ("id", "interaction", "tenant", "trusted")
    )
    letters, _ = _drop_stored(cursor, "stored_letters", decoded.dead_letters, _PLACE)
    rest = Decoded(decoded.source, interactions, feedback, letters, decoded.spans)
    return rest, Copies(again | said_again, until)


def _drop_stored(
    cursor: Connection, statement: str, table: pa.Table, key: Sequence[str]
) -> tuple[pa.Table, frozenset[Address]]:
    bounds = {}
    if "id" in key and table.num_rows:
        ids = table["id"].to_pylist()
        bounds = {"low": min(ids), "high": max(ids)}  # an id range lets zone maps prune
    stored, fresh = split_by_statement(cursor, _SQL[statement], table, key, **bounds)
    return fresh, addresses_of(stored)
