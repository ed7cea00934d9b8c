"""One maker of stores: `open_stores`, which only the wiring, benchmarks and tests call."""

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.stores import Stores
from tests.support.broker import ROOT

MAKER = ROOT / "daemon" / "store" / "stores.py"
HELD = set(get_type_hints(Stores).values()) - {Database}
NAMES = {kind.__name__ for kind in HELD}


def _product_files() -> Iterator[Path]:
    for folder in ("daemon", "consumers", "serving", "bench"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def _called_names(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.attr if isinstance(function, ast.Attribute) else None
            yield function.id if isinstance(function, ast.Name) else name or "", node.lineno


def _classes_over_a_database() -> Iterator[str]:
    """Classes below daemon/store whose constructor takes an open Database."""
    for path in sorted((ROOT / "daemon" / "store").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            for part in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                    kinds = [ast.unparse(a.annotation) for a in part.args.args if a.annotation]
                    if "Database" in kinds and isinstance(node, ast.ClassDef):
                        yield node.name


def test_only_the_wiring_constructs_stores() -> None:
    wiring = ROOT / "daemon" / "wiring"
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in _product_files()
        if path != MAKER and wiring not in path.parents
        for name, line in _called_names(path)
        if name in NAMES
    ]
    assert found == []


def test_only_the_wiring_and_benchmarks_open_the_stores() -> None:
    allowed = {"wiring", "bench"}
    found = [
        str(path.relative_to(ROOT))
        for path in _product_files()
        if allowed.isdisjoint(path.relative_to(ROOT).parts)
        and any(name == "open_stores" for name, _ in _called_names(path))
    ]
    assert found == []


def test_every_class_over_a_database_is_held_by_the_stores() -> None:
    assert set(_classes_over_a_database()) - NAMES == set()


def test_no_store_is_held_twice() -> None:
    assert len(fields(Stores)) == len(HELD) + 1
