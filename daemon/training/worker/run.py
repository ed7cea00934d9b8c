"""One training, from a job to a finished adapter. Imported only once the process is settled."""

from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from adaptd.daemon.training.batches import plan_batches
from adaptd.daemon.training.job import CHECKPOINTS, Done, Job, TrainingProgress
from adaptd.daemon.training.worker import checkpoints
from adaptd.daemon.training.worker.data import Row, read_probes, read_rows
from adaptd.daemon.training.worker.memory import peak_bytes
from adaptd.daemon.training.worker.model import load_model, seed_everything, vocabulary
from adaptd.daemon.training.worker.process import Report, paused_s, running_s
from adaptd.daemon.training.worker.publish import publish
from adaptd.daemon.training.worker.trainer import AnswerTrainer, Plan, Watch

# On a CPU each further length costs seconds once; on a GPU nothing worth saving.
_LENGTHS_CPU, _LENGTHS_GPU = 3, 16


def train(job: Job, report: Report) -> Done:
    """Train, or go on from the last checkpoint, and publish. Raises what `failures` explains."""
    transformers_logging.set_verbosity_error()
    found = checkpoints.latest(Path(job.directory) / CHECKPOINTS, job)
    done = found.seal.step if found else 0
    report(TrainingProgress(phase="loading", step=done, total=job.steps, resumed_from=done or None))
    seed_everything(job)
    model = load_model(job)
    limits = {"vocabulary": vocabulary(model), "max_length": job.max_length}
    rows, too_long = read_rows(Path(job.train_path), **limits)
    probes = read_probes(Path(job.probes_path), **limits)
    figures = {"rows": len(rows), "rows_too_long": too_long}
    figures |= _train(job, report, model, rows, found)
    report(TrainingProgress(phase="publishing", step=job.steps, total=job.steps))
    return publish(job, model, probes, figures | {"peak_bytes": peak_bytes()})


def _train(
    job: Job,
    report: Report,
    model: Any,
    rows: list[Row],
    found: checkpoints.Checkpoint | None,
) -> dict[str, Any]:
    plan = _plan(job, rows)
    done, before = (found.seal.step, found.seal.elapsed_s) if found else (0, 0.0)
    watch = Watch(job, plan, report, done=done, elapsed_s=before)
    trainer = AnswerTrainer(job, model, plan, rows)
    watch.trainer = trainer
    trainer.add_callback(watch)
    ran_before, paused_before = running_s(), paused_s()
    trainer.train(resume_from_checkpoint=str(found.path) if found else None)
    return {
        "steps": job.steps,
        "resumed_from": done,
        "train_s": round(running_s() - ran_before, 1),
        "paused_s": round(paused_s() - paused_before, 1),
        "lengths": sorted({part.length for step in plan for part in step}),
        "loss_first": watch.losses[0] if watch.losses else None,
        "loss_last": watch.losses[-1] if watch.losses else None,
    }


def _plan(job: Job, rows: list[Row]) -> Plan:
    return plan_batches(
        [row.shape for row in rows],
        steps=job.steps,
        batch=job.batch,
        micro_batch=job.micro_batch,
        seed=job.seed,
        at_most_lengths=_LENGTHS_GPU if torch.cuda.is_available() else _LENGTHS_CPU,
    )
