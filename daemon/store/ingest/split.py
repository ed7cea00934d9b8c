"""Splits a chunk's table by an SQL statement that names rows of it.

Stands alone because four filters share it: duplicates in a window, copies of any age, rows of
erased people, and rows that the store refuses.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from adaptd.daemon.domain.ingest import Address
from adaptd.daemon.store.database.database import Connection, arrow, registered

TABLES = ("interactions", "feedback", "dead_letters")


def split_by_statement(
    cursor: Connection,
    statement: str,
    table: pa.Table,
    columns: Sequence[str] | None = None,
    **values: Any,
) -> tuple[pa.Table, pa.Table]:
    """Return the rows that `statement` names, then the others, each in the table's order.

    The statement reads `columns` of the table (None: all) as `chunk_rows`, whose column "row"
    counts from 0, and returns the numbers of the rows that it names.
    """
    if table.num_rows == 0:
        return table, table
    numbers = pa.array(np.arange(table.num_rows))
    given = table if columns is None else table.select(list(columns))
    with registered(cursor, "chunk_rows", given.append_column("row", numbers)):
        found = arrow(cursor, statement, **values)["row"].to_numpy()
    named = np.zeros(table.num_rows, dtype=bool)
    named[found] = True  # a join may name a row twice
    # Nearly always all rows are named, or none: neither copies anything.
    if named.all():
        return table, table.slice(0, 0)
    if not named.any():
        return table.slice(0, 0), table
    return table.filter(pa.array(named)), table.filter(pa.array(~named))


def addresses_of(table: pa.Table) -> frozenset[Address]:
    """Return the places of the log, or of the door's requests, that the rows came from."""
    columns = (
        table[name].to_pylist() for name in ("topic", "partition", "position", "batch_index")
    )
    return frozenset(Address(*values) for values in zip(*columns, strict=True))
