"""A table is split by the rows that a statement names; both parts keep the table's order."""

from collections.abc import Iterator

import pyarrow as pa
import pytest

from adaptd.daemon.domain.ingest import Address
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.ingest.split import addresses_of, split_by_statement


@pytest.fixture
def database() -> Iterator[Database]:
    opened = Database.open(":memory:")
    yield opened
    opened.close()


TABLE = pa.table({"id": ["c", "a", "b"], "size": [3, 1, 2]})


def split(database: Database, statement: str, table: pa.Table = TABLE) -> tuple[list[str], ...]:
    parts = database.write_now(lambda c: split_by_statement(c, statement, table, ("id",), low="b"))
    return tuple(part["id"].to_pylist() for part in parts)


@pytest.mark.parametrize(
    ("condition", "named", "others"),
    [
        ("id >= $low", ["c", "b"], ["a"]),
        ("id < $low", ["a"], ["c", "b"]),
        ("id <> $low || 'x'", ["c", "a", "b"], []),
        ("id = $low || 'x'", [], ["c", "a", "b"]),
    ],
)
def test_the_named_rows_come_first(
    database: Database, condition: str, named: list[str], others: list[str]
) -> None:
    statement = f'SELECT "row" FROM chunk_rows WHERE {condition} ORDER BY id'
    assert split(database, statement) == (named, others)


def test_a_row_that_is_named_several_times_names_no_other(database: Database) -> None:
    statement = 'SELECT "row" FROM chunk_rows, range(3) WHERE id = $low'
    assert split(database, statement) == (["b"], ["c", "a"])


def test_both_parts_have_every_column(database: Database) -> None:
    statement = 'SELECT "row" FROM chunk_rows WHERE id = $low'
    parts = database.write_now(lambda c: split_by_statement(c, statement, TABLE, ("id",), low="b"))
    assert [part.to_pylist() for part in parts] == [
        [{"id": "b", "size": 2}],
        [{"id": "c", "size": 3}, {"id": "a", "size": 1}],
    ]


def test_a_table_without_rows_asks_nothing(database: Database) -> None:
    assert split(database, "no SQL at all", TABLE.slice(0, 0)) == ([], [])


def test_the_table_is_let_go_of_when_the_statement_fails(database: Database) -> None:
    with pytest.raises(Exception, match="nowhere"):
        split(database, "SELECT nowhere FROM chunk_rows WHERE id = $low")
    with pytest.raises(Exception, match="chunk_rows"):
        database.write_now(lambda c: c.execute("FROM chunk_rows"))


def test_addresses_are_the_places_of_the_rows() -> None:
    table = pa.table(
        {"topic": ["events"], "partition": [3], "position": [14], "batch_index": [0], "id": ["x"]}
    )
    assert addresses_of(table) == {Address("events", 3, 14, 0)}
