"""Supervised fine-tuning: weighted cross entropy on the answers' tokens."""

from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from peft import PeftModel
from torch.nn import functional
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from adaptd.daemon.training.batches import MicroBatch, Shape
from adaptd.daemon.training.job import Job
from adaptd.daemon.training.worker.data import RowLayout, check_ids
from adaptd.daemon.training.worker.failures import DataError
from adaptd.daemon.training.worker.methods import TrainingMethod, register_method
from adaptd.daemon.training.worker.model import logits_at
from adaptd.daemon.training.worker.trainer import (
    BatchPlan,
    PlannedCollator,
    PlannedTrainer,
    planned_arguments,
)


class AnswerRow(msgspec.Struct, frozen=True):
    """Token ids, the positions of those that are learnt (never the first), and the row's weight."""

    ids: list[int]
    learnt: list[int]
    weight: float

    @property
    def shape(self) -> Shape:
        return Shape(len(self.ids), len(self.learnt))


def parse_answer_row(number: int, values: Mapping[str, Any], vocabulary: int) -> AnswerRow:
    """One row of a snapshot, checked. A file without weights counts every row once.

    Raises:
        DataError: the row is not what a snapshot holds.
    """
    ids, mask, weight = values["input_ids"], values["loss_mask"], values.get("weight", 1.0)
    check_ids("row", number, ids, vocabulary)
    learnt = [at for at, value in enumerate(mask) if value and at > 0]
    if len(ids) != len(mask) or not learnt:
        raise DataError(f"row {number}", "its loss mask does not fit", "Build the snapshot again")
    if not 0 < weight < float("inf"):
        raise DataError(f"row {number}", f"its weight is {weight}", "Weights are above 0")
    return AnswerRow(ids, learnt, weight)


class AnswerTrainer(PlannedTrainer, SFTTrainer):
    """TRL's SFTTrainer on rows that are token ids with a mask already."""

    def __init__(self, job: Job, model: PeftModel, plan: BatchPlan, rows: list[AnswerRow]) -> None:
        def make_tensors(part: MicroBatch, step: tuple[MicroBatch, ...]) -> dict[str, torch.Tensor]:
            return micro_batch_tensors(part, rows, normaliser=step_weight(step, rows))

        super().__init__(
            job,
            model,
            arguments=SFTConfig(
                **planned_arguments(job, accumulate=len(plan[0])),
                dataset_kwargs={"skip_prepare_dataset": True},
                max_length=None,
                shuffle_dataset=False,
            ),
            collator=PlannedCollator(plan, make_tensors),
        )

    def micro_batch_loss(self, model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """This micro-batch's part of the step's weighted cross entropy, in float32."""
        logits = logits_at(model, inputs["input_ids"], inputs["positions"])
        losses = functional.cross_entropy(logits, inputs["targets"], reduction="none")
        return (losses * inputs["weights"]).sum()


def micro_batch_tensors(
    part: MicroBatch, rows: list[AnswerRow], *, normaliser: float
) -> dict[str, torch.Tensor]:
    """One micro-batch: ids padded on the right, and the flat positions that predict a learnt token.

    `weights` are already divided by the step's total, and 0 where `positions` is padding.
    """
    # No attention mask: attention is causal, so no token before the padding looks at it.
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


def step_weight(step: tuple[MicroBatch, ...], rows: list[AnswerRow]) -> float:
    """The divisor of a step's loss: its learnt tokens, each counted with the weight of its row."""
    indices = [index for part in step for index in part.rows]
    return sum(rows[index].weight * len(rows[index].learnt) for index in indices)


SFT = register_method(
    TrainingMethod(
        name="sft",
        rows=RowLayout(("input_ids", "loss_mask"), parse_answer_row, optional=("weight",)),
        make_trainer=AnswerTrainer,
    )
)
