"""TRL's SFTTrainer, taught to learn from token ids with a mask, to report, and to stop."""

import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch.nn import functional
from transformers import (
    AutoTokenizer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from adaptd.daemon.training.batches import MicroBatch
from adaptd.daemon.training.job import CHECKPOINTS, PARENT_PID, Job
from adaptd.daemon.training.worker import checkpoints
from adaptd.daemon.training.worker.data import Row, micro_batch_tensors, step_weight
from adaptd.daemon.training.worker.failures import NotFiniteError, TimeLimitError
from adaptd.daemon.training.worker.model import logits_at
from adaptd.daemon.training.worker.process import Report, check_parent, running_s
from adaptd.daemon.training.worker.progress import step_progress

Plan = list[tuple[MicroBatch, ...]]


class Collator:
    """From the number of a micro-batch to its tensors."""

    def __init__(self, plan: Plan, rows: list[Row]) -> None:
        self._rows = rows
        self._parts = [(part, step_weight(step, rows)) for step in plan for part in step]

    def __call__(self, examples: list[dict[str, int]]) -> dict[str, torch.Tensor]:
        part, normaliser = self._parts[examples[0]["micro_batch"]]
        return micro_batch_tensors(part, self._rows, normaliser=normaliser)

    def __len__(self) -> int:
        return len(self._parts)


class AnswerTrainer(SFTTrainer):
    """Learns the masked tokens of rows that are ids already, in exactly the planned order."""

    def __init__(self, job: Job, model: PeftModel, plan: Plan, rows: list[Row]) -> None:
        collator = Collator(plan, rows)
        super().__init__(
            model=model,
            args=_arguments(job, accumulate=len(plan[0])),
            data_collator=collator,
            train_dataset=Dataset.from_dict({"micro_batch": list(range(len(collator)))}),
            processing_class=AutoTokenizer.from_pretrained(job.base_dir, local_files_only=True),
        )
        self.loss_is_scaled_for_ga = True  # by step_weight: micro-batches just add up
        self.step_loss = 0.0
        self.elapsed_s = 0.0  # kept by Watch
        self._job = job
        self._adapted = model
        self._folder = Path(job.directory) / CHECKPOINTS

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """This micro-batch's part of the step's weighted cross entropy, in float32."""
        logits = logits_at(model, inputs["input_ids"], inputs["positions"])
        losses = functional.cross_entropy(logits, inputs["targets"], reduction="none")
        loss = (losses * inputs["weights"]).sum()
        value = loss.item()
        if not math.isfinite(value):
            raise NotFiniteError(f"the loss of step {self.state.global_step + 1} is {value}")
        self.step_loss += value
        return loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: it walks all parameters at every step."""
        return 0

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Only the adapter: tokenizer, arguments and model card are not ours to keep."""
        assert output_dir
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        self._adapted.save_pretrained(output_dir)

    def _get_output_dir(self, trial: Any) -> str:
        return str(checkpoints.fresh(self._folder))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        checkpoints.clear(self._folder)
        super(SFTTrainer, self)._save_checkpoint(model, trial)  # TRL's own adds a model card
        step = self.state.global_step
        written = checkpoints.fresh(self._folder) / f"checkpoint-{step}"
        checkpoints.seal(written, self._folder, step=step, elapsed_s=self.elapsed_s, job=self._job)


class Watch(TrainerCallback):
    """Reports every step, and ends the training where the time is up or the daemon is gone."""

    def __init__(
        self, job: Job, plan: Plan, report: Report, *, done: int, elapsed_s: float
    ) -> None:
        self.trainer: AnswerTrainer | None = None
        self._job = job
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
        assert self.trainer
        loss, self.trainer.step_loss = self.trainer.step_loss, 0.0
        self.losses.append(loss)
        ran_s = running_s() - self._ran_before
        self.trainer.elapsed_s = self._elapsed_before + ran_s
        progress = step_progress(
            self._job,
            first=self._first,
            step=state.global_step,
            loss=loss,
            tokens=self._tokens,
            ran_s=ran_s,
            wall_s=time.monotonic() - self._started,
        )
        self._report(progress)
        check_parent(self._parent)
        if self.trainer.elapsed_s > self._job.max_time_s and state.global_step < self._job.steps:
            step, limit = state.global_step, self._job.max_time_s
            raise TimeLimitError(f"{limit:.0f} s were over at step {step} of {self._job.steps}")


def _arguments(job: Job, *, accumulate: int) -> SFTConfig:
    return SFTConfig(
        output_dir=str(Path(job.directory) / CHECKPOINTS),
        max_steps=job.steps,
        per_device_train_batch_size=1,  # one planned micro-batch
        gradient_accumulation_steps=accumulate,
        train_sampling_strategy="sequential",
        learning_rate=job.learning_rate,
        lr_scheduler_type="cosine",
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=job.seed,
        bf16=False,  # the base is in its own dtype and the LoRA weights in float32: no autocast
        gradient_checkpointing=False,
        save_strategy="steps",
        save_steps=job.checkpoint_every,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        shuffle_dataset=False,
    )
