"""The files of a snapshot that training reads, row by row and checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from adaptd.daemon.training.batches import Shape
from adaptd.daemon.training.worker.failures import DataError


class LearnableRow(Protocol):
    """One row of any training method."""

    @property
    def shape(self) -> Shape: ...


@dataclass(frozen=True)
class RowLayout:
    """The columns that train.parquet has to have or may have, and the parser of a row.

    `parse` takes the row's number, its values by column and the size of the vocabulary. It raises
    DataError for a row that cannot be learnt.
    """

    columns: tuple[str, ...]
    parse: Callable[[int, Mapping[str, Any], int], LearnableRow]
    optional: tuple[str, ...] = ()


class ProbeItem(msgspec.Struct, frozen=True):
    ids: list[int]
    context_tokens: int


def read_rows(
    path: Path, layout: RowLayout, *, vocabulary: int, max_length: int
) -> tuple[list[Any], int]:
    """The rows in the file's order, and the number of those left out: longer than `max_length`.

    Raises:
        DataError: there are none, or one is not what a snapshot holds.
    """
    table = _read_table(path, layout.columns)
    read = [*layout.columns, *(name for name in layout.optional if name in table.column_names)]
    values = table.select(read).to_pylist()
    rows = [layout.parse(number, row, vocabulary) for number, row in enumerate(values)]
    kept = [row for row in rows if row.shape.tokens <= max_length]
    if not kept:
        problem = f"none of its {len(rows)} rows can be trained on"
        raise DataError(path.name, problem, f"Rows may hold {max_length} tokens at most")
    return kept, len(rows) - len(kept)


def read_probes(path: Path, *, vocabulary: int, max_length: int) -> list[ProbeItem]:
    """The snapshot's probes, each cut to `max_length` tokens.

    Raises:
        DataError: the file cannot be read, or a probe is not what a snapshot holds.
    """
    table = _read_table(path, ("ids", "context_tokens"))
    probes = []
    for ids, context in zip(
        table["ids"].to_pylist(), table["context_tokens"].to_pylist(), strict=True
    ):
        check_ids("probe", len(probes), ids, vocabulary)
        kept = ids[:max_length]
        probes.append(ProbeItem(kept, min(context, len(kept))))
    return probes


def check_ids(what: str, number: int, ids: list[int], vocabulary: int) -> None:
    """Raise DataError unless these are token ids of the base. `what` and `number` name the row."""
    if not ids or min(ids) < 0 or max(ids) >= vocabulary:
        problem = f"its token ids are not the base's (0 to {vocabulary - 1})"
        remedy = "Build the snapshot with the base's own tokenizer"
        raise DataError(f"{what} {number}", problem, remedy)


def _read_table(path: Path, columns: tuple[str, ...]) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(path.name, "it cannot be read", "Build the snapshot again") from error
    if missing := [name for name in columns if name not in table.column_names]:
        problem = f"it has no column {', '.join(missing)}"
        raise DataError(path.name, problem, "Build the snapshot again")
    return table
