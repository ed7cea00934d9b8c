"""The files and lines between the daemon and a training child. Both import it, so no torch here."""

from pathlib import Path
from typing import Any

import msgspec

from adaptd.daemon.domain.states import FailureCause
from adaptd.daemon.wire.files import replace_file
from adaptd.daemon.wire.texts import NOT_DECODED

JOB_FILE = "job.json"
LOCK_FILE = "lock"
LOG_FILE = "trainer.log"
CHECKPOINTS = "checkpoints"
PARENT_PID = "ADAPTD_PARENT_PID"  # environment variable: the daemon whose death ends the child
PAUSED_FD = "ADAPTD_PAUSED_FD"  # environment variable: an open file with the time of all pauses
FIRST_METHOD = "sft"  # of a job that names no method: releases before methods wrote none


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """The version whose weights training continues from."""

    name: str
    path: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a training child needs. The same job gives the same adapter on the same machine.

    `method` is the name of a training method (training/worker/methods). `targets` are module names
    without their path; `alpha` is LoRA's, so a change is scaled by alpha / rank. One step learns
    from `batch` rows, `micro_batch` at a time. Rows longer than `max_length` tokens are left out.
    `max_time_s` bounds all attempts together, without the time for which the child was stopped.
    `dtype` is the number format of the server: of the base while training, of the saved adapter,
    and of the probes.
    """

    run_id: str
    model: str
    base: str
    base_dir: str
    base_digest: str
    snapshot_id: str
    snapshot_hash: str
    train_path: str
    probes_path: str
    directory: str
    method: str = FIRST_METHOD
    parent: Parent | None = None
    rank: int
    alpha: int
    targets: list[str]
    learning_rate: float
    steps: int
    batch: int
    micro_batch: int
    max_length: int
    max_time_s: float
    checkpoint_every: int
    seed: int
    threads: int
    niceness: int = 5
    dtype: str


class TrainingProgress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """One line while a child works. `phase`: loading, training, probing or publishing.

    `tokens_per_s` is over the time in which the child ran; `eta_s` is wall time, pauses included.
    """

    phase: str
    step: int
    total: int
    loss: float | None = None
    tokens_per_s: float | None = None
    eta_s: float | None = None
    resumed_from: int | None = None


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """The last line of a child that trained. `path` is where its adapter waits for a number."""

    path: str
    content_hash: str
    figures: dict[str, Any] = {}


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The last line of a child that failed."""

    cause: FailureCause
    message: str


Line = TrainingProgress | Done | Failed
EXIT_LOCKED = 15  # another child holds the run directory
EXIT_CODES = {
    FailureCause.ERROR: 1,
    FailureCause.OOM: 10,
    FailureCause.NAN: 11,
    FailureCause.TIMEOUT: 12,
    FailureCause.DISK: 13,
    FailureCause.DATA: 14,
}


def write_job(job: Job) -> Path:
    """Write job.json into the run directory, whole or not at all."""
    path = Path(job.directory) / JOB_FILE
    replace_file(path, msgspec.json.format(msgspec.json.encode(job)))
    return path


def read_job(path: Path) -> Job:
    return msgspec.json.decode(path.read_bytes(), type=Job)


def encode_line(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def decode_line(line: bytes) -> Line | None:
    """The line, or None for output that is not a child's line."""
    try:
        return msgspec.json.decode(line, type=Line)
    except NOT_DECODED:
        return None  # a library may print to stdout before the child has redirected it
