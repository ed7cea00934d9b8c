"""docs/glossary.md: one line a word, in order; words that are not to be said stand nowhere."""

import ast
import re
from collections.abc import Iterator

from tests.support.broker import ROOT

ROW = re.compile(r"^\| ([a-z ]+) \| (.+?) \| ?(.*?) ?\|$", re.MULTILINE)
FOLDERS = ("daemon", "consumers", "serving")


def rows() -> list[tuple[str, str, str]]:
    text = (ROOT / "docs" / "glossary.md").read_text("utf-8")
    return [(row[1], row[2], row[3]) for row in ROW.finditer(text) if row[1] != "word"]


def banned() -> set[str]:
    return {word.strip() for _, _, words in rows() for word in words.split(",") if word.strip()}


def names_of(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.name
            case ast.Name():
                yield node.id
            case ast.arg() | ast.keyword():
                yield node.arg or ""
            case ast.Attribute():
                yield node.attr
            case ast.alias():
                yield node.asname or ""
            case _:
                pass


def words_of(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return [word for word in spaced.lower().split("_") if word]


def test_each_word_stands_once_and_in_order() -> None:
    words = [word for word, _, _ in rows()]
    assert words == sorted(set(words))
    assert len(words) > 40


def test_words_that_are_not_to_be_said_are_part_of_no_identifier() -> None:
    forbidden = banned()
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in sorted({path.stem, *names_of(ast.parse(path.read_text("utf-8")))})
        if forbidden.intersection(words_of(name))
    ]
    assert found == []
