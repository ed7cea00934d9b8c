"""Halves of letters are found, and shown as codes, wherever UTF-8 has to be written."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptd.daemon.wire.errors import AdaptdError
from adaptd.daemon.wire.texts import encodable, encode_json, is_encodable, unencodable_in

HALF = "\ud800"
_any_text = st.text(st.characters(categories=None))
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_any_text, inner, max_size=3),
    max_leaves=8,
)


class Answer(msgspec.Struct):
    what: str
    at: datetime


@given(_any_text)
def test_any_text_can_be_made_one_that_utf_8_holds(text: str) -> None:
    assert encodable(text).encode().decode() == encodable(text)
    assert is_encodable(text) == (encodable(text) == text)


@given(_json)
def test_whatever_is_answered_is_json(value: Any) -> None:
    content = encode_json(value)
    decoded = msgspec.json.decode(content)
    if unencodable_in(value) is None:
        assert decoded == value


@pytest.mark.parametrize(
    "value",
    [
        HALF,
        "a\udcff",
        {"a": [1, {"b": HALF}]},
        {HALF: 1},
        (HALF,),
        frozenset({HALF}),
        Path(f"/tmp/{HALF}"),
        {"bases": {"tiny": Path("\udcff")}},
    ],
)
def test_half_a_letter_is_found_wherever_it_hides(value: Any) -> None:
    found = unencodable_in(value)
    assert found is not None
    assert is_encodable(found)


@pytest.mark.parametrize(
    "value", ["", "naïve 😀", {"a": [b"\xff", None, 1.5]}, Path("/tmp/ü"), [[[]]]]
)
def test_what_utf_8_holds_is_not_complained_of(value: Any) -> None:
    assert unencodable_in(value) is None


def test_structs_with_half_a_letter_are_answered_with_its_code() -> None:
    content = encode_json({"answer": Answer(f"it is {HALF}", datetime(2026, 1, 1, tzinfo=UTC))})
    assert msgspec.json.decode(content)["answer"]["what"] == "it is \\ud800"


@pytest.mark.parametrize("place", ["where", "problem", "remedy"])
def test_an_error_can_be_written_whatever_it_quotes(place: str) -> None:
    error = AdaptdError(**{"where": "a", "problem": "b", "remedy": "c"} | {place: f"of {HALF}"})
    assert "of \\ud800" in str(error)
    for text in (str(error), error.where, error.problem, error.remedy):
        assert is_encodable(text)
