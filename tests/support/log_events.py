"""Log events of the product, read from its sources."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.broker import ROOT

LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
FOLDERS = ("daemon", "consumers", "serving")


class LogCall(NamedTuple):
    """One place where something is logged. `event` is None where it is no literal."""

    event: str | None
    level: str
    fields: tuple[str, ...]
    file: str
    line: int


def log_calls() -> Iterator[LogCall]:
    """Every call of a logger below the product's folders."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call) and _is_log_call(node):
                    yield _call(node, path)


def _is_log_call(node: ast.Call) -> bool:
    called = node.func
    if not (isinstance(called, ast.Attribute) and called.attr in LEVELS):
        return False
    owner = called.value
    name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    return name in ("_log", "log", "logger", "_logger")


def _call(node: ast.Call, path: Path) -> LogCall:
    assert isinstance(node.func, ast.Attribute)
    first = node.args[0] if node.args else None
    event = first.value if isinstance(first, ast.Constant) else None
    fields = tuple(sorted(word.arg or "…" for word in node.keywords))
    file = path.relative_to(ROOT).as_posix()
    return LogCall(event, node.func.attr, fields, file, node.lineno)


PAGE = ROOT / "docs" / "logs.md"
_HEAD = """# Log events

Every event that adaptd logs, made by `python -m tests.support.log_events`. The daemon logs text or,
with `log_json`, one JSON object a line; a gateway always logs JSON. No field holds a prompt or an
answer (invariant 12).

| event | level | fields | logged in |
| --- | --- | --- | --- |
"""


def page_text() -> str:
    """The content of docs/logs.md."""
    rows: dict[tuple[str, str, str], set[str]] = {}
    for call in log_calls():
        key = (call.event or "", call.level, call.file)
        rows.setdefault(key, set()).update(call.fields)
    lines = [
        f"| `{event}` | {level} | {_in_words(fields)} | `{file}` |"
        for (event, level, file), fields in sorted(rows.items())
    ]
    return _HEAD + "\n".join(lines) + "\n"


def _in_words(fields: set[str]) -> str:
    return ", ".join(f"`{name}`" if name != "…" else "more" for name in sorted(fields))


if __name__ == "__main__":
    PAGE.write_text(page_text(), "utf-8")
