"""The snapshot's rows, checked, and as tensors of a few fixed shapes."""

from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from adaptd.daemon.training.batches import MicroBatch, Shape
from adaptd.daemon.training.worker.failures import DataError


class Row(msgspec.Struct, frozen=True):
    """Token ids, which of them are learnt (never the first), and how much the row counts."""

    ids: list[int]
    learnt: list[int]  # positions
    weight: float

    @property
    def shape(self) -> Shape:
        return Shape(len(self.ids), len(self.learnt))


class ProbeItem(msgspec.Struct, frozen=True):
    ids: list[int]
    context_tokens: int


def read_rows(path: Path, *, vocabulary: int, max_length: int) -> tuple[list[Row], int]:
    """The rows in the file's order, and how many longer than `max_length` were left out.

    Raises:
        DataError: there are none, or one is not what a snapshot holds.
    """
    table = _read(path, ("input_ids", "loss_mask"))
    ids, masks = table["input_ids"].to_pylist(), table["loss_mask"].to_pylist()
    weighted = "weight" in table.column_names
    weights = table["weight"].to_pylist() if weighted else [1.0] * len(ids)
    rows = [
        _row(n, vocabulary, *values)
        for n, values in enumerate(zip(ids, masks, weights, strict=True))
    ]
    kept = [row for row in rows if len(row.ids) <= max_length]
    if not kept:
        problem = f"none of its {len(rows)} rows can be trained on"
        raise DataError(path.name, problem, f"Rows may hold {max_length} tokens at most")
    return kept, len(rows) - len(kept)


def read_probes(path: Path, *, vocabulary: int, max_length: int) -> list[ProbeItem]:
    """The snapshot's probes, cut to what fits. Raises DataError as above."""
    table = _read(path, ("ids", "context_tokens"))
    probes = []
    for ids, context in zip(
        table["ids"].to_pylist(), table["context_tokens"].to_pylist(), strict=True
    ):
        _check_ids("probe", len(probes), ids, vocabulary)
        kept = ids[:max_length]
        probes.append(ProbeItem(kept, min(context, len(kept))))
    return probes


def micro_batch_tensors(
    part: MicroBatch, rows: list[Row], *, normaliser: float
) -> dict[str, torch.Tensor]:
    """One micro-batch: ids padded on the right, and the flat positions that predict a learnt token.

    Padding is on the right and attention causal, so no mask is needed: nothing looks at it.
    `weights` are already divided by the step's total, and 0 where `positions` is padding.
    """
    input_ids = torch.zeros(len(part.rows), part.length, dtype=torch.long)
    positions = torch.zeros(part.targets, dtype=torch.long)
    targets = torch.zeros(part.targets, dtype=torch.long)
    weights = torch.zeros(part.targets, dtype=torch.float32)
    filled = 0
    for line, row in enumerate(rows[index] for index in part.rows):
        input_ids[line, : len(row.ids)] = torch.tensor(row.ids)
        end = filled + len(row.learnt)
        learnt = torch.tensor(row.learnt)
        positions[filled:end] = line * part.length + learnt - 1
        targets[filled:end] = torch.tensor(row.ids)[learnt]
        weights[filled:end] = row.weight / normaliser
        filled = end
    return {
        "input_ids": input_ids,
        "positions": positions,
        "targets": targets,
        "weights": weights,
    }


def step_weight(step: tuple[MicroBatch, ...], rows: list[Row]) -> float:
    """What a step's loss is divided by: its learnt tokens, each counted with its row's weight."""
    indices = [index for part in step for index in part.rows]
    return sum(rows[index].weight * len(rows[index].learnt) for index in indices)


def _read(path: Path, columns: tuple[str, ...]) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(path.name, "it cannot be read", "Build the snapshot again") from error
    if missing := [name for name in columns if name not in table.column_names]:
        problem = f"it has no column {', '.join(missing)}"
        raise DataError(path.name, problem, "Build the snapshot again")
    return table


def _row(number: int, vocabulary: int, ids: list[int], mask: list[int], weight: float) -> Row:
    _check_ids("row", number, ids, vocabulary)
    learnt = [at for at, value in enumerate(mask) if value and at > 0]
    if len(ids) != len(mask) or not learnt:
        raise DataError(f"row {number}", "its loss mask does not fit", "Build the snapshot again")
    if not 0 < weight < float("inf"):
        raise DataError(f"row {number}", f"its weight is {weight}", "Weights are above 0")
    return Row(ids, learnt, weight)


def _check_ids(what: str, number: int, ids: list[int], vocabulary: int) -> None:
    if not ids or min(ids) < 0 or max(ids) >= vocabulary:
        problem = f"its token ids are not the base's (0 to {vocabulary - 1})"
        remedy = "Build the snapshot with the base's own tokenizer"
        raise DataError(f"{what} {number}", problem, remedy)
