"""docs/events.md, the schemas beside it, the types and the store say the same."""

import re
from typing import Any

import jsonschema
import msgspec
import pytest

from adaptd.daemon.store.database.database import Database
from adaptd.daemon.wire.event_contract import FOLDER, documents, feedback_schema
from adaptd.daemon.wire.events import Feedback, Interaction
from adaptd.daemon.wire.feedback import problem_with

PAGE = (FOLDER.parent / "events.md").read_text("utf-8")


def table_under(heading: str) -> list[list[str]]:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.+) \|$", section, re.MULTILINE)
    return [[cell.strip() for cell in row.split(" | ")] for row in rows]


def names_in(rows: list[list[str]]) -> set[str]:
    return {name for row in rows for name in re.findall(r"`([a-z_]+)`", row[0])}


@pytest.mark.parametrize(("name", "text"), documents().items())
def test_the_schemas_are_those_of_the_types(name: str, text: str) -> None:
    remedy = "run `python -m adaptd.daemon.wire.event_contract`"
    assert (FOLDER / name).read_text("utf-8") == text, remedy


def test_every_field_is_documented() -> None:
    fields = set(Interaction.__struct_fields__) - {"schema"}
    assert names_in(table_under("Interaction")) == fields
    kinds = {"rating", "correction", "preference", "label", "metric", "comment"}
    fields = set(Feedback.__struct_fields__) - {"schema"}
    assert names_in(table_under("Feedback")) == fields | kinds


async def test_the_columns_of_where_are_documented_with_their_types() -> None:
    database = Database.open(":memory:")
    try:
        rows: list[Any] = await database.read(
            lambda cursor: cursor.execute(
                "DESCRIBE SELECT * FROM examples_as_of(TIMESTAMPTZ '2026-01-01')"
            ).fetchall()
        )
    finally:
        database.close()
    types = {name: kind if "[]" not in kind else "list of STRUCT" for name, kind, *_ in rows}
    found = table_under("Columns of `where`")
    assert {row[0].strip("`"): row[1] for row in found} == types


def a_piece(**fields: Any) -> dict[str, Any]:
    return {"id": "f", "time": "2026-11-30T12:00:00Z", "interaction": "i", **fields}


@pytest.mark.parametrize(
    "piece",
    [
        a_piece(kind="rating", value=1),
        a_piece(kind="rating", value=-1),
        a_piece(kind="rating", value=0.5),
        a_piece(kind="rating", value=0),
        a_piece(kind="rating", value=3, scale=[1, 5]),
        a_piece(kind="rating"),
        a_piece(kind="rating", value="good"),
        a_piece(kind="correction", text="Yes."),
        a_piece(kind="correction", text="  "),
        a_piece(kind="correction", message={"role": "assistant", "content": "Yes."}),
        a_piece(kind="correction"),
        a_piece(kind="preference", chosen="a", rejected="b"),
        a_piece(kind="preference", chosen="a"),
        a_piece(kind="label", name="topic", value="cards"),
        a_piece(kind="label", name="topic"),
        a_piece(kind="metric", name="seconds", value=2.5),
        a_piece(kind="metric", name="seconds", value="slow"),
        a_piece(kind="comment", text="why?"),
        a_piece(kind="comment"),
    ],
    ids=str,
)
def test_the_schema_of_feedback_judges_as_the_product_does(piece: dict[str, Any]) -> None:
    """What a schema cannot say, that a value lies on its scale, is left out here."""
    valid = jsonschema.Draft202012Validator(feedback_schema()).is_valid(piece)
    assert valid == (problem_with(msgspec.convert(piece, Feedback)) is None)
