"""Data on stdout: tabs for scripts, aligned columns on a terminal, JSON on request."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="Only this alias.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Kept in the history for good.")]
_GAP = "  "


def say(text: str) -> None:
    """Words for people, on stderr."""
    typer.echo(text, err=True)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_rows(
    found: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool
) -> None:
    """One line a row. A column may be a path like `progress.step`; what is missing is `-`."""
    if as_json:
        print_json(list(found))
        return
    lines = [[cell(value_at(row, column)) for column in columns] for row in found]
    if not sys.stdout.isatty():
        for line in lines:
            typer.echo("\t".join(line))
        return
    _print_aligned([[column.rpartition(".")[2] for column in columns], *lines])


def print_fields(value: Mapping[str, Any], *, as_json: bool) -> None:
    """One field a line, nested ones by their path."""
    if as_json:
        print_json(value)
        return
    for path, leaf in leaves(value):
        typer.echo(f"{path}\t{cell(leaf)}")


def leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every leaf of nested mappings and lists with its dotted path."""
    if isinstance(value, Mapping) and value:
        pairs = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        pairs = [(str(index), inner) for index, inner in enumerate(value)]
    else:
        return [(path, value)]
    found: list[tuple[str, Any]] = []
    for key, inner in pairs:
        found += leaves(inner, f"{path}.{key}" if path else key)
    return found


def value_at(row: Any, path: str) -> Any:
    for key in path.split("."):
        row = row.get(key) if isinstance(row, Mapping) else None
    return row


def cell(value: Any) -> str:
    """One value on one line without tabs. Times to the second, floats to four digits."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = str(value)
    return _short_time(text) or " ".join(text.split())


def _short_time(text: str) -> str | None:
    if len(text) < 19 or text[4:5] != "-" or "T" not in text[10:11]:
        return None
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return None


def _print_aligned(lines: list[list[str]]) -> None:
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    for number, line in enumerate(lines):
        padded = _GAP.join(text.ljust(width) for text, width in zip(line, widths, strict=True))
        typer.secho(padded.rstrip(), bold=number == 0)
