"""Names and docstrings keep to docs/contributing.md. The limits are shares of the whole tree."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.support.broker import ROOT

FOLDERS = ("daemon", "consumers", "serving")
OPENINGS = "What|Whether|Where|Which|How|Why|When|Who|Whom|Whose"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def modules() -> Iterator[tuple[str, ast.Module]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))


TREES = dict(modules())


def is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def is_one_word(name: str) -> bool:
    return len([word for word in name.split("_") if word]) == 1


def share(names: list[str]) -> float:
    return sum(map(is_one_word, names)) / max(1, len(names))


def test_a_class_name_stands_for_one_thing() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(path)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_private_functions_say_verb_and_object() -> None:
    """At most a fifth has a name of one word."""
    names = [
        node.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, FUNCTIONS) and node.name.startswith("_") and not is_dunder(node.name)
    ]
    assert share(names) <= 0.20


def test_public_functions_of_modules_say_verb_and_object() -> None:
    """At most three in ten have a name of one word; a method's object is its class."""
    names = [
        node.name
        for tree in TREES.values()
        for node in tree.body
        if isinstance(node, FUNCTIONS) and not node.name.startswith("_")
    ]
    assert share(names) <= 0.30


def docstrings() -> Iterator[tuple[str, str]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS)) and (
                text := ast.get_docstring(node)
            ):
                yield f"{path}:{getattr(node, 'name', '')}", text


def test_docstrings_open_with_a_noun_phrase_or_an_imperative() -> None:
    """At most one in fifty opens with a question word."""
    found = list(docstrings())
    asking = [where for where, text in found if re.match(rf"({OPENINGS})\b", text)]
    assert len(asking) <= 0.02 * len(found), asking


@pytest.mark.parametrize(
    ("name", "one"), [("_part", True), ("split_by_statement", False), ("__", False)]
)
def test_words_of_a_name_are_counted(name: str, one: bool) -> None:
    assert is_one_word(name) == one
