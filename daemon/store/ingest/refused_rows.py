"""Rows that decode but fail DuckDB's JSON check: kept as dead letters.

Stands alone: only a chunk that the store has refused comes here.
"""

import msgspec
import pyarrow as pa

from adaptd.daemon.domain.ingest import Address, Decoded
from adaptd.daemon.store.database.database import Connection
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.ingest.split import addresses_of, split_by_statement

_SQL = statements("events")


def divert_refused_rows(cursor: Connection, decoded: Decoded) -> tuple[Decoded, frozenset[Address]]:
    """Return the chunk with the refused rows as dead letters, and the addresses of these."""
    bad, interactions = split_by_statement(
        cursor, _SQL["unstorable_interactions"], decoded.interactions
    )
    bad_feedback, feedback = split_by_statement(
        cursor, _SQL["unstorable_feedback"], decoded.feedback
    )
    refused = bad.to_pylist() + bad_feedback.to_pylist()
    letters = pa.Table.from_pylist(
        [_make_letter(row) for row in refused], schema=decoded.dead_letters.schema
    )
    diverted = Decoded(
        source=decoded.source,
        interactions=interactions,
        feedback=feedback,
        dead_letters=pa.concat_tables([decoded.dead_letters, letters]),
        spans=decoded.spans,
    )
    return diverted, addresses_of(bad) | addresses_of(bad_feedback)


def _make_letter(row: dict[str, object]) -> dict[str, object]:
    where = ("source", "topic", "partition", "position", "batch_index")
    address = {name: row[name] for name in where}
    return address | {
        "id": "/".join(str(part) for part in address.values()),
        "reason": "unstorable",
        "detail": "the store takes one of its JSON fields for malformed",
        "bytes": msgspec.json.encode(row, enc_hook=str),
    }
