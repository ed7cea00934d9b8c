"""The line after each step. Stands alone as a pure core, which is tested without torch."""

from collections.abc import Sequence

from adaptd.daemon.training.job import Job, TrainingProgress


def step_progress(
    job: Job,
    *,
    first: int,
    step: int,
    loss: float,
    tokens: Sequence[int],
    ran_s: float,
    wall_s: float,
) -> TrainingProgress:
    """Describe a child that began after step `first` and has done `step`.

    `tokens` are those of each step of the job, padding included. The speed is over the time in
    which the child ran (`ran_s`); the time left includes pauses, at their rate so far (`wall_s`).
    """
    return TrainingProgress(
        phase="training",
        step=step,
        total=job.steps,
        loss=round(loss, 4),
        tokens_per_s=round(sum(tokens[first:step]) / ran_s, 1),
        eta_s=round(wall_s / (step - first) * (job.steps - step), 1),
        resumed_from=first or None,
    )
