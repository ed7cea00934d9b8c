"""Checkpoints of a training: written beside, sealed with digests, renamed; only the last is kept.

No torch here, so that the daemon's tests read checkpoints without it.
"""

import hashlib
import os
import shutil
from pathlib import Path

import msgspec

from adaptd.daemon.training.adapter_files import file_hash
from adaptd.daemon.training.job import FIRST_METHOD, Job
from adaptd.daemon.wire.files import sync_directory
from adaptd.daemon.wire.texts import NOT_DECODED

_SEAL = "adaptd.json"
_PREFIX = "checkpoint-"
_FRESH = ".fresh"
# Fields that may differ between two attempts at one job without a change in what is learnt.
_NOT_LEARNING = ("run_id", "directory", "micro_batch", "max_time_s", "checkpoint_every", "niceness")


class CheckpointSeal(msgspec.Struct, frozen=True, kw_only=True):
    """The digests of a checkpoint's files, and the key of the job that it belongs to.

    `elapsed_s` is the time that all attempts together had spent.
    """

    step: int
    elapsed_s: float
    job: str
    files: dict[str, str]


class Checkpoint(msgspec.Struct, frozen=True):
    path: Path
    seal: CheckpointSeal


def job_key(job: Job) -> str:
    """SHA-256 over the fields that decide the result, in hex."""
    content = {
        key: value for key, value in msgspec.to_builtins(job).items() if key not in _NOT_LEARNING
    }
    # The key stays that of a release whose jobs had no method, so its checkpoints resume.
    if job.method == FIRST_METHOD:
        del content["method"]
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def find_latest(folder: Path, job: Job) -> Checkpoint | None:
    """The newest whole checkpoint of this job. A torn or foreign one is ignored."""
    numbered = [path for path in folder.glob(f"{_PREFIX}*") if path.name[len(_PREFIX) :].isdigit()]
    for path in sorted(numbered, key=lambda path: int(path.name[len(_PREFIX) :]), reverse=True):
        seal = _read_whole(path)
        if seal and seal.job == job_key(job):
            return Checkpoint(path, seal)
    return None


def fresh_folder(folder: Path) -> Path:
    """The folder in which the next checkpoint is written before it is sealed."""
    return folder / _FRESH


def clear_fresh(folder: Path) -> None:
    """Delete a checkpoint that an earlier attempt left half written."""
    shutil.rmtree(fresh_folder(folder), ignore_errors=True)


def seal_checkpoint(written: Path, folder: Path, *, step: int, elapsed_s: float, job: Job) -> None:
    """Seal the written files, rename their folder into `folder`, then delete the older ones."""
    files = {path.name: file_hash(path) for path in sorted(written.iterdir())}
    content = CheckpointSeal(step=step, elapsed_s=elapsed_s, job=job_key(job), files=files)
    (written / _SEAL).write_bytes(msgspec.json.encode(content))
    for path in written.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    target = folder / f"{_PREFIX}{step}"
    shutil.rmtree(target, ignore_errors=True)
    written.rename(target)
    sync_directory(folder)
    for path in folder.glob(f"{_PREFIX}*"):
        if path != target:
            shutil.rmtree(path, ignore_errors=True)


def _read_whole(path: Path) -> CheckpointSeal | None:
    """The seal of a checkpoint whose files are all as they were sealed, else None."""
    try:
        content = msgspec.json.decode((path / _SEAL).read_bytes(), type=CheckpointSeal)
        intact = all(file_hash(path / name) == digest for name, digest in content.files.items())
    except (OSError, *NOT_DECODED):
        return None
    return content if intact else None
