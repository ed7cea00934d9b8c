"""Levels of lists and objects, counted in one way."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptd.daemon.wire.nesting import nests_deeper


@pytest.mark.parametrize(
    ("value", "levels"),
    [
        (1, 0),
        ("[[]]", 0),
        (None, 0),
        ([], 1),
        ({}, 1),
        ([1, 2], 1),
        ({"a": [1]}, 2),
        ([[1]], 2),
        ([[], {"a": [1]}], 3),
        ({"a": {"b": {"c": 1}}}, 3),
    ],
)
def test_levels_are_those_of_lists_and_objects(value: Any, levels: int) -> None:
    assert not nests_deeper(value, levels)
    assert levels == 0 or nests_deeper(value, levels - 1)


@given(levels=st.integers(0, 80), limit=st.integers(0, 80))
def test_only_what_is_deeper_than_the_limit_is_deeper(levels: int, limit: int) -> None:
    value: Any = "end"
    for number in range(levels):
        value = [value] if number % 2 else {"more": value}
    assert nests_deeper(value, limit) == (levels > limit)
