"""The table for people, and the same rows as JSON."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.chaos.arena import Outcome

_COLUMNS = ("fault", "injected", "sent", "lost", "duplicated", "reordered", "recover_s")
_TITLES = ("fault", "injected", "sent", "lost", "duplicated", "out of order", "recover s")


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Lines of a table, with what is wrong or to be known under its row."""
    width = max(len(outcome.fault) for outcome in outcomes) + 2
    yield _line(_TITLES, width)
    for outcome in outcomes:
        yield _line([_cell(outcome, name) for name in _COLUMNS], width)
        if outcome.note:
            yield f"    {outcome.note}"
        yield from (f"    WRONG: {problem}" for problem in outcome.problems)


def write_json(outcomes: Sequence[Outcome], path: Path) -> None:
    """One object a row, with the columns' names as keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = [{name: getattr(outcome, name) for name in _COLUMNS} for outcome in outcomes]
    lines = ",\n".join(f"  {json.dumps(row)}" for row in found)
    path.write_text(f"[\n{lines}\n]\n")


def _cell(outcome: Outcome, name: str) -> str:
    value = getattr(outcome, name)
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _line(cells: Sequence[str], width: int) -> str:
    first, *rest = cells
    return first.ljust(width) + "".join(cell.rjust(14) for cell in rest)
