"""The parts that the trainers of all methods share: plan, reports, checkpoints, stop."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import (
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from adaptd.daemon.training.batches import MicroBatch
from adaptd.daemon.training.job import CHECKPOINTS, PARENT_PID, Job
from adaptd.daemon.training.worker import checkpoints
from adaptd.daemon.training.worker.failures import NotFiniteError, TimeLimitError
from adaptd.daemon.training.worker.process import Report, check_parent, running_s
from adaptd.daemon.training.worker.progress import step_progress

PlannedStep = tuple[MicroBatch, ...]
BatchPlan = list[PlannedStep]


class PlannedCollator:
    """From the number of a micro-batch in the plan to its tensors."""

    def __init__(
        self,
        plan: BatchPlan,
        make_tensors: Callable[[MicroBatch, PlannedStep], dict[str, torch.Tensor]],
    ) -> None:
        self._parts = [(part, step) for step in plan for part in step]
        self._make_tensors = make_tensors

    def __call__(self, examples: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        return self._make_tensors(*self._parts[examples[0]["micro_batch"]])

    def __len__(self) -> int:
        return len(self._parts)


class PlannedTrainer(Trainer):
    """A trainer that goes through the plan in order and seals its checkpoints.

    A method's trainer derives from this class and from TRL's, in this order, and has its loss in
    `micro_batch_loss`.
    """

    def __init__(
        self,
        job: Job,
        model: PeftModel,
        *,
        arguments: TrainingArguments,
        collator: PlannedCollator,
    ) -> None:
        super().__init__(
            model=model,
            args=arguments,
            data_collator=collator,
            train_dataset=Dataset.from_dict({"micro_batch": list(range(len(collator)))}),
            processing_class=AutoTokenizer.from_pretrained(job.base_dir, local_files_only=True),
        )
        # The losses of a step's micro-batches are shares of the step already: they just add up.
        self.loss_is_scaled_for_ga = True
        self.step_loss = 0.0
        self.elapsed_s = 0.0  # kept by StepCallback
        self._job = job
        self._adapted = model
        self._folder = Path(job.directory) / CHECKPOINTS

    def micro_batch_loss(self, model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """This micro-batch's part of the loss of its step."""
        raise NotImplementedError

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The method's loss, added to `step_loss`.

        Raises:
            NotFiniteError: the loss is infinite or not a number.
        """
        loss = self.micro_batch_loss(model, inputs)
        value = loss.item()
        if not math.isfinite(value):
            raise NotFiniteError(f"the loss of step {self.state.global_step + 1} is {value}")
        self.step_loss += value
        return loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the count walks all parameters at every step."""
        return 0

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the adapter only: tokenizer, arguments and model card can be made again."""
        assert output_dir
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        self._adapted.save_pretrained(output_dir)

    def _get_output_dir(self, trial: Any) -> str:
        return str(checkpoints.fresh_folder(self._folder))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        checkpoints.clear_fresh(self._folder)
        Trainer._save_checkpoint(self, model, trial)  # noqa: SLF001 - TRL's own adds a model card
        step = self.state.global_step
        written = checkpoints.fresh_folder(self._folder) / f"checkpoint-{step}"
        checkpoints.seal_checkpoint(
            written, self._folder, step=step, elapsed_s=self.elapsed_s, job=self._job
        )


class StepCallback(TrainerCallback):
    """Reports every step, and ends the training where the time is up or the daemon is gone."""

    def __init__(
        self,
        job: Job,
        trainer: PlannedTrainer,
        plan: BatchPlan,
        report: Report,
        *,
        done: int,
        elapsed_s: float,
    ) -> None:
        self._job = job
        self._trainer = trainer
        self._report = report
        self._first = done
        self._elapsed_before = elapsed_s
        self._tokens = [sum(len(part.rows) * part.length for part in step) for step in plan]
        self._started, self._ran_before = time.monotonic(), running_s()
        self._parent = int(os.environ.get(PARENT_PID, "0"))
        self.losses: list[float] = []

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        trainer, job, step = self._trainer, self._job, state.global_step
        loss, trainer.step_loss = trainer.step_loss, 0.0
        self.losses.append(loss)
        ran_s = running_s() - self._ran_before
        trainer.elapsed_s = self._elapsed_before + ran_s
        progress = step_progress(
            job,
            first=self._first,
            step=step,
            loss=loss,
            tokens=self._tokens,
            ran_s=ran_s,
            wall_s=time.monotonic() - self._started,
        )
        self._report(progress)
        check_parent(self._parent)
        if trainer.elapsed_s > job.max_time_s and step < job.steps:
            limit = job.max_time_s
            raise TimeLimitError(f"{limit:.0f} s were over at step {step} of {job.steps}")


def planned_arguments(job: Job, *, accumulate: int) -> dict[str, Any]:
    """The arguments of any method's TrainingArguments. A step has `accumulate` micro-batches."""
    return {
        "output_dir": str(Path(job.directory) / CHECKPOINTS),
        "max_steps": job.steps,
        "per_device_train_batch_size": 1,  # one planned micro-batch
        "gradient_accumulation_steps": accumulate,
        "train_sampling_strategy": "sequential",
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": "cosine",
        "optim": "adamw_torch",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "seed": job.seed,
        # No autocast: the base is in its own number format and the LoRA weights are float32.
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "steps",
        "save_steps": job.checkpoint_every,
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "remove_unused_columns": False,
    }
