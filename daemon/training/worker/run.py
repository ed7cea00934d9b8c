"""One training, from a job to a finished adapter.

Stands alone for its import cost: the child imports it only after it has set up its process, because
torch reads its environment when it is imported.
"""

from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from adaptd.daemon.training.batches import plan_batches
from adaptd.daemon.training.job import CHECKPOINTS, Done, Job, TrainingProgress
from adaptd.daemon.training.worker import checkpoints
from adaptd.daemon.training.worker.data import LearnableRow, read_probes, read_rows
from adaptd.daemon.training.worker.methods import TrainingMethod, find_method
from adaptd.daemon.training.worker.model import load_model, seed_everything, vocabulary_size
from adaptd.daemon.training.worker.process import Report, paused_s, peak_bytes, running_s
from adaptd.daemon.training.worker.publish import publish
from adaptd.daemon.training.worker.trainer import BatchPlan, StepCallback

# On a CPU each further length costs seconds once; on a GPU nothing worth saving.
_LENGTHS_CPU, _LENGTHS_GPU = 3, 16


def train(job: Job, report: Report) -> Done:
    """Train by the job's method, or continue from the last checkpoint, and publish.

    1. Find the method, before anything is loaded.
    2. Find the last whole checkpoint of this job.
    3. Load the base with LoRA on it, then the snapshot's rows and probes.
    4. Learn the steps that are left.
    5. Publish the adapter with its probes.

    Raises the errors for which `failures.explain_failure` has a cause.
    """
    transformers_logging.set_verbosity_error()
    method = find_method(job.method)
    found = checkpoints.find_latest(Path(job.directory) / CHECKPOINTS, job)
    done = found.seal.step if found else 0
    report(TrainingProgress(phase="loading", step=done, total=job.steps, resumed_from=done or None))
    seed_everything(job)
    model = load_model(job)
    limits = {"vocabulary": vocabulary_size(model), "max_length": job.max_length}
    rows, too_long = read_rows(Path(job.train_path), method.rows, **limits)
    probes = read_probes(Path(job.probes_path), **limits)
    figures = {"rows": len(rows), "rows_too_long": too_long}
    figures |= _train_steps(job, report, model, method, rows, found)
    report(TrainingProgress(phase="publishing", step=job.steps, total=job.steps))
    return publish(job, model, probes, figures | {"peak_bytes": peak_bytes()})


def _train_steps(
    job: Job,
    report: Report,
    model: Any,
    method: TrainingMethod,
    rows: list[Any],
    found: checkpoints.Checkpoint | None,
) -> dict[str, Any]:
    plan = _plan_steps(job, rows)
    done, before = (found.seal.step, found.seal.elapsed_s) if found else (0, 0.0)
    trainer = method.make_trainer(job, model, plan, rows)
    callback = StepCallback(job, trainer, plan, report, done=done, elapsed_s=before)
    trainer.add_callback(callback)
    ran_before, paused_before = running_s(), paused_s()
    trainer.train(resume_from_checkpoint=str(found.path) if found else None)
    return {
        "steps": job.steps,
        "resumed_from": done,
        "train_s": round(running_s() - ran_before, 1),
        "paused_s": round(paused_s() - paused_before, 1),
        "lengths": sorted({part.length for step in plan for part in step}),
        "loss_first": callback.losses[0] if callback.losses else None,
        "loss_last": callback.losses[-1] if callback.losses else None,
    }


def _plan_steps(job: Job, rows: list[LearnableRow]) -> BatchPlan:
    return plan_batches(
        [row.shape for row in rows],
        steps=job.steps,
        batch=job.batch,
        micro_batch=job.micro_batch,
        seed=job.seed,
        at_most_lengths=_LENGTHS_GPU if torch.cuda.is_available() else _LENGTHS_CPU,
    )
