"""The rule that no test mixes a fixed date with the machine's clock, read from the sources.

A test that does passes near that date only: what it stored "now" is a day, a week, a year away from
what the product takes for now. It is looked for by definition: a test reaches what it names, the
fixtures it asks for, and what those name in turn, through all modules of the tests.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Place = tuple[str, str]  # a module and what it defines
Trees = Mapping[str, ast.Module]
_DATE = re.compile(r"(19|20)\d\d-\d\d-\d\d([T ]|$)")
_CLOCKS = (
    "date.today",
    "datetime.now",
    "datetime.today",
    "datetime.utcnow",
    "time.time",
    "time.time_ns",
)
# An event's own time is its sender's word: the product takes any, and never for its own now.
_SAID_BY_SENDERS = "time"
_EVENTS = {"a_correction", "a_rating", "an_interaction"}
# These read the clock for what they report or print, and compare it with nothing.
_REPORTS = {"ChunkReader", "Renderer"}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Definition:
    """Where it meets a fixed date and the machine's clock itself, and what it names."""

    fixed: str | None
    real: str | None
    names: frozenset[str]


class Sources:
    """Modules of the tests by name, and what of the product they can reach the clock through."""

    def __init__(self, tests: Trees, product: Trees) -> None:
        readers = frozenset(_readers(product))
        self._imports = {module: _imports(tree) for module, tree in tests.items()}
        self._definitions = {
            (module, name): _definition(module, node, self._readers_in(module, readers))
            for module, tree in tests.items()
            for name, node in _definitions(tree).items()
            if name not in _EVENTS
        }

    def mixed(self) -> Iterator[str]:
        """Every definition that reaches both, with where. Programs only gather others."""
        for module, name in self._definitions:
            if module.endswith(".__main__"):
                continue
            reached = [self._definitions[place] for place in self._reached((module, name))]
            fixed = next((found.fixed for found in reached if found.fixed), None)
            real = next((found.real for found in reached if found.real), None)
            if fixed and real:
                yield f"{module}.{name}: a fixed date at {fixed}, the machine's clock at {real}"

    def _readers_in(self, module: str, readers: frozenset[Place]) -> frozenset[str]:
        return frozenset(
            name for name, source in self._imports[module].items() if source in readers
        )

    def _reached(self, start: Place) -> Iterator[Place]:
        seen, left = {start}, [start]
        while left:
            place = left.pop()
            yield place
            for name in self._definitions[place].names:
                found = self._find(place[0], name)
                if found is not None and found not in seen:
                    seen.add(found)
                    left.append(found)

    def _find(self, module: str, name: str) -> Place | None:
        """Where a name is defined: here, where it is imported from, or in a conftest above.

        `name` may be dotted: what a module that is imported defines.
        """
        owner, _, last = name.rpartition(".")
        if owner:
            source = self._imports.get(module, {}).get(owner)
            return self._find(".".join(source) if source else owner, last)
        if (module, name) in self._definitions:
            return module, name
        source = self._imports.get(module, {}).get(name)
        if source is not None:
            return self._find(*source)
        above = module.rpartition(".")[0]
        while above and (f"{above}.conftest", name) not in self._definitions:
            above = above.rpartition(".")[0]
        return (f"{above}.conftest", name) if above else None


def canonical(tree: ast.Module) -> ast.Module:
    """A module with the names of modules and clocks spelled out: `t.time()` → `time.time()`."""
    return ast.fix_missing_locations(_Spelling(tree).visit(tree))


class _Spelling(ast.NodeTransformer):
    """Replaces aliases that `import … as` and `from time import time` make."""

    def __init__(self, tree: ast.Module) -> None:
        self._modules = {
            alias.asname: alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
            if alias.asname
        }
        self._clocks = {
            name: ".".join(place)
            for name, place in _imports(tree).items()
            if ".".join(place) in _CLOCKS
        }

    def visit_Name(self, node: ast.Name) -> ast.expr:
        spelled = self._modules.get(node.id) or self._clocks.get(node.id)
        if spelled is None or not isinstance(node.ctx, ast.Load):
            return node
        return ast.copy_location(ast.parse(spelled, mode="eval").body, node)


def read_modules(root: Path, *folders: str, mentioning: tuple[str, ...] = ("",)) -> Trees:
    """Modules below these folders of the repository, by dotted name, that hold one of the words."""
    files = [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]
    texts = {path: path.read_text("utf-8") for path in files}
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): canonical(ast.parse(text))
        for path, text in texts.items()
        if any(word in text for word in mentioning)
    }


def _readers(product: Trees) -> Iterator[Place]:
    """What reads the machine's clock by itself, or unless it is handed one as `clock`."""
    for module, tree in product.items():
        for name, node in _definitions(tree).items():
            if name not in _REPORTS and any(
                _is_clock(part) or _may_be_handed_one(part) for part in ast.walk(node)
            ):
                yield module, name


def _may_be_handed_one(node: ast.AST) -> bool:
    return isinstance(node, _FUNCTIONS) and any(
        argument.arg == "clock"
        and default is not None
        and argument.annotation is not None
        and "datetime" in ast.unparse(argument.annotation)
        for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    )


def _definition(module: str, node: ast.stmt, readers: frozenset[str]) -> Definition:
    parts = list(_parts(node))
    fixed = next((_line(part) for part in parts if _is_fixed(part)), None)
    real = next((_line(part) for part in parts if _is_clock(part) or _reads(part, readers)), None)
    return Definition(
        fixed=f"{module}:{fixed}" if fixed else None,
        real=f"{module}:{real}" if real else None,
        names=frozenset(_names(parts)),
    )


def _line(node: ast.AST) -> int:
    return getattr(node, "lineno", 0)


def _definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: node for target in targets if isinstance(target, ast.Name)}
    return found


def _imports(tree: ast.Module) -> dict[str, Place]:
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def _names(parts: list[ast.AST]) -> Iterator[str]:
    """What is named, and the fixtures that are asked for."""
    for part in parts:
        if isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, ast.Attribute):
            yield _dotted(part)
        elif isinstance(part, ast.arg):
            yield part.arg


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """As `ast.walk`, without what is said of an event's own time."""
    yield node
    for child in ast.iter_child_nodes(node):
        said = isinstance(child, ast.keyword) and child.arg == _SAID_BY_SENDERS
        if not said and not (isinstance(node, ast.Dict) and child in _times(node)):
            yield from _parts(child)


def _times(node: ast.Dict) -> list[ast.expr]:
    return [
        value
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == _SAID_BY_SENDERS
    ]


def _is_fixed(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and _DATE.match(node.value) is not None
    return (
        isinstance(node, ast.Call)
        and _called(node).rpartition(".")[2] in ("datetime", "date")
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant)
    )


def _is_clock(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and f".{_called(node)}".endswith(
        tuple(f".{clock}" for clock in _CLOCKS)
    )


def _reads(node: ast.AST, readers: frozenset[str]) -> bool:
    """A call of such a part of the product, or a `partial` of one, without a clock."""
    if not isinstance(node, ast.Call) or any(word.arg in ("clock", None) for word in node.keywords):
        return False
    called = _called(node)
    if called == "partial" and node.args and isinstance(node.args[0], ast.Name):
        called = node.args[0].id
    return called.partition(".")[0] in readers


def _called(node: ast.Call) -> str:
    """The dotted name of what is called; empty where it is no name."""
    return _dotted(node.func)


def _dotted(node: ast.expr) -> str:
    """The dotted name that an expression is; empty where it is none."""
    parts, part = list[str](), node
    while isinstance(part, ast.Attribute):
        parts.append(part.attr)
        part = part.value
    return ".".join([part.id, *reversed(parts)]) if isinstance(part, ast.Name) else ""
