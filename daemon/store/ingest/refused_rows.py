"""Rows that decode but that the store refuses (no JSON to it): kept as dead letters."""

import msgspec
import numpy as np
import pyarrow as pa

from adaptd.daemon.domain.ingest import Address, Decoded
from adaptd.daemon.store.database.database import Connection, arrow
from adaptd.daemon.store.database.statements import statements

TABLES = ("interactions", "feedback", "dead_letters")
_SQL = statements("events")


def part_unstorable(cursor: Connection, decoded: Decoded) -> tuple[Decoded, frozenset[Address]]:
    """The same chunks with the refused rows as dead letters, and their addresses."""
    interactions, bad = _part(cursor, "unstorable_interactions", decoded.interactions)
    feedback, bad_feedback = _part(cursor, "unstorable_feedback", decoded.feedback)
    refused = bad.to_pylist() + bad_feedback.to_pylist()
    letters = pa.Table.from_pylist(
        [_letter(row) for row in refused], schema=decoded.dead_letters.schema
    )
    parted = Decoded(
        source=decoded.source,
        interactions=interactions,
        feedback=feedback,
        dead_letters=pa.concat_tables([decoded.dead_letters, letters]),
        spans=decoded.spans,
    )
    return parted, addresses(bad) | addresses(bad_feedback)


def addresses(table: pa.Table) -> frozenset[Address]:
    """Where the rows of a chunk came from."""
    columns = (
        table[name].to_pylist() for name in ("topic", "partition", "position", "batch_index")
    )
    return frozenset(Address(*values) for values in zip(*columns, strict=True))


def _part(cursor: Connection, statement: str, table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Rows the store takes, and rows it refuses."""
    if table.num_rows == 0:
        return table, table
    row = pa.array(range(table.num_rows), pa.int64())
    cursor.register("chunk_rows", table.append_column("row", row))
    try:
        found = arrow(cursor, _SQL[statement])["row"].to_numpy()
    finally:
        cursor.unregister("chunk_rows")
    refused = np.zeros(table.num_rows, dtype=bool)
    refused[found] = True
    return table.filter(pa.array(~refused)), table.filter(pa.array(refused))


def _letter(row: dict[str, object]) -> dict[str, object]:
    where = ("source", "topic", "partition", "position", "batch_index")
    address = {name: row[name] for name in where}
    return address | {
        "id": "/".join(str(part) for part in address.values()),
        "reason": "unstorable",
        "detail": "the store takes one of its JSON fields for malformed",
        "bytes": msgspec.json.encode(row, enc_hook=str),
    }
