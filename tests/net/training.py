"""A training that was killed after a checkpoint: what lies between the daemon and its child.

All paths of the job are relative to the run's directory, in which a child is started: the
checkpoint's seal covers them, and it must hold wherever the files are put.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from adaptd.daemon.domain.bases import base_digest
from adaptd.daemon.training.adapter_files import WEIGHTS, check_files
from adaptd.daemon.training.job import (
    CHECKPOINTS,
    Done,
    Job,
    TrainingProgress,
    decode_line,
    write_job,
)
from tests.support.tiny_model import FORMAT
from tests.support.training_world import a_job, command, write_snapshot
from tests.support.waiting import LIMIT_S

STEPS, EVERY = 40, 10
_WAYS = frozenset({"avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile"})
REFERENCE = "reference.safetensors"


def relative_job(base: Path, **changes: Any) -> Job:
    """A small job for the run directory FOLDER/run, its base at FOLDER/base."""
    paths = {
        "base_dir": "../base",
        "train_path": "../snapshot/train.parquet",
        "probes_path": "../snapshot/probes.parquet",
        "directory": ".",
    }
    few = {"rank": 4, "alpha": 8, "steps": STEPS, "checkpoint_every": EVERY, "threads": 1}
    more = {"base_digest": base_digest(base), "dtype": FORMAT} | paths | few | changes
    return a_job(Path(), **more)


def leave_run(folder: Path, base: Path) -> dict[str, Any]:
    """Leave FOLDER/snapshot and FOLDER/run as a killed child does, and say what it would make.

    Called in FOLDER/run. The weights of a run that nobody killed lie beside it.
    """
    write_snapshot(folder / "snapshot")
    job = relative_job(base)
    whole = _whole(job)
    adapter = Path(whole.path)
    found = check_files(adapter)
    shutil.copy(adapter / WEIGHTS, folder / REFERENCE)
    _empty(folder / "run")
    _kill_after(job, EVERY + 1)
    (checkpoint,) = (folder / "run" / CHECKPOINTS).glob("checkpoint-*")
    _forget_scratch(folder / "run")
    return {
        "content_hash": found.content_hash,
        "torch": found.versions["torch"],
        "processor": processor(),
        "step": int(checkpoint.name.rpartition("-")[2]),
    }


def _whole(job: Job) -> Done:
    done = subprocess.run(command(job), stdout=subprocess.PIPE, check=True, timeout=LIMIT_S)
    last = decode_line(done.stdout.splitlines()[-1])
    assert isinstance(last, Done)
    return last


def _kill_after(job: Job, step: int) -> None:
    """Kill a child once it has made that step."""
    child = subprocess.Popen(command(job), stdout=subprocess.PIPE)
    assert child.stdout
    for line in child.stdout:
        said = decode_line(line)
        if isinstance(said, TrainingProgress) and said.phase == "training" and said.step >= step:
            child.kill()
            break
    child.communicate()
    assert child.returncode < 0, "it had ended before"
    write_job(job)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _forget_scratch(folder: Path) -> None:
    """Leave the job and its checkpoint."""
    for path in folder.iterdir():
        if path.name not in ("job.json", CHECKPOINTS):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def processor() -> str:
    """Its name and how it may compute: sums of floats differ between processors."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = {name.strip(): value.split() for name, _, value in (s.partition(":") for s in lines)}
    ways = sorted(_WAYS.intersection(facts.get("flags", ())))
    return " ".join([*facts.get("model name", ()), *ways])


def furthest_apart(one: Path, other: Path) -> float:
    """The largest difference between two files of weights of the same names."""
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    return max(float(np.max(np.abs(first[name] - second[name]))) for name in first)
