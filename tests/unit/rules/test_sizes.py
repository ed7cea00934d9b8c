"""Sizes that docs/contributing.md promises."""

import ast
from collections.abc import Iterator

from tests.support.broker import ROOT

MOST_LINES_A_FILE = 400
MOST_LINES_A_BODY = 40
FOLDERS = ("daemon", "consumers", "serving", "tests", "bench")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def sources() -> Iterator[tuple[str, str]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text("utf-8")


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement to the last, without the docstring."""
    statements = function.body
    if ast.get_docstring(function) is not None:
        statements = statements[1:]
    if not statements:
        return 0
    return (statements[-1].end_lineno or 0) - statements[0].lineno + 1


def test_no_body_of_a_function_is_longer_than_forty_lines() -> None:
    long = [
        f"{path}:{node.lineno} {node.name}"
        for path, text in sources()
        if not path.startswith(("tests/", "bench/"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, FUNCTIONS) and body_lines(node) > MOST_LINES_A_BODY
    ]
    assert long == []


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    long = [path for path, text in sources() if text.count("\n") > MOST_LINES_A_FILE]
    assert long == []
