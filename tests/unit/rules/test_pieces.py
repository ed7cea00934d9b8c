"""A small module that serves one other says in its docstring why it stands alone."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.support.broker import ROOT

FOLDERS = ("daemon", "consumers", "serving")
# Folders where one file each is the design.
SEAMS = frozenset(
    {"triggers", "methods", "metrics", "curation", "commands", "web", "doctor", "demo"}
)
SMALL_LINES = 80
REASON = re.compile(r"\bstands? alone\b|\bapart\b|\bown process\b|\ba port\b", re.IGNORECASE)


def modules() -> dict[str, Path]:
    return {
        "adaptd." + ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_small_modules_of_one_importer_give_their_reason() -> None:
    known = modules()
    texts = {name: path.read_text("utf-8") for name, path in known.items()}
    trees = {name: ast.parse(text) for name, text in texts.items()}
    importers: dict[str, set[str]] = defaultdict(set)
    for name, tree in trees.items():
        if known[name].name != "__init__.py":
            for found in known.keys() & set(imported(tree)):
                importers[found].add(name)
    silent = [
        known[name].relative_to(ROOT).as_posix()
        for name, text in texts.items()
        if not known[name].name.startswith("__")
        and SEAMS.isdisjoint(known[name].parts)
        and len(importers[name]) == 1
        and text.count("\n") < SMALL_LINES
        and not REASON.search(ast.get_docstring(trees[name]) or "")
    ]
    assert silent == []
