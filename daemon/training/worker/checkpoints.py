"""Checkpoints: written beside and renamed, sealed with digests, the last one kept."""

import hashlib
import os
import shutil
from pathlib import Path

import msgspec

from adaptd.daemon.training.adapter_files import file_hash
from adaptd.daemon.training.job import Job
from adaptd.daemon.wire.files import sync_directory
from adaptd.daemon.wire.texts import NOT_DECODED

_SEAL = "adaptd.json"
_PREFIX = "checkpoint-"
_FRESH = ".fresh"
# What may differ between two attempts at one job without changing what is learnt.
_NOT_LEARNING = ("run_id", "directory", "micro_batch", "max_time_s", "checkpoint_every", "niceness")


class CheckpointSeal(msgspec.Struct, frozen=True, kw_only=True):
    """`elapsed_s` is the time all attempts had spent. `job` tells another job's checkpoint."""

    step: int
    elapsed_s: float
    job: str
    files: dict[str, str]


class Checkpoint(msgspec.Struct, frozen=True):
    path: Path
    seal: CheckpointSeal


def job_key(job: Job) -> str:
    """SHA-256 over what decides the result."""
    content = {
        key: value for key, value in msgspec.to_builtins(job).items() if key not in _NOT_LEARNING
    }
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def latest(folder: Path, job: Job) -> Checkpoint | None:
    """The newest whole checkpoint of this job. A torn or foreign one is ignored."""
    numbered = [path for path in folder.glob(f"{_PREFIX}*") if path.name[len(_PREFIX) :].isdigit()]
    for path in sorted(numbered, key=lambda path: int(path.name[len(_PREFIX) :]), reverse=True):
        seal = _whole(path)
        if seal and seal.job == job_key(job):
            return Checkpoint(path, seal)
    return None


def fresh(folder: Path) -> Path:
    """Where the next one is written before it is sealed."""
    return folder / _FRESH


def clear(folder: Path) -> None:
    """Throw away what an earlier attempt left half written."""
    shutil.rmtree(fresh(folder), ignore_errors=True)


def seal(written: Path, folder: Path, *, step: int, elapsed_s: float, job: Job) -> None:
    """Seal what was written, rename it into `folder`, then delete the older ones."""
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


def _whole(path: Path) -> CheckpointSeal | None:
    try:
        content = msgspec.json.decode((path / _SEAL).read_bytes(), type=CheckpointSeal)
        intact = all(file_hash(path / name) == hash_ for name, hash_ in content.files.items())
    except (OSError, *NOT_DECODED):
        return None
    return content if intact else None
