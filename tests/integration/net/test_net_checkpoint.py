"""A training of an earlier release that was killed goes on from its checkpoint."""

from pathlib import Path

import pytest

from adaptd.daemon.domain.bases import base_digest
from adaptd.daemon.training.adapter_files import WEIGHTS, check_files
from adaptd.daemon.training.job import CHECKPOINTS, Job, TrainingProgress, read_job
from adaptd.daemon.training.launcher import start_child
from adaptd.daemon.training.worker import checkpoints
from tests.net.artifacts import recorded, unpack
from tests.net.training import REFERENCE, furthest_apart, processor
from tests.support.waiting import LIMIT_S

# Sums of floats differ between processors and releases of torch, and each step builds on them.
FURTHEST = 0.01


@pytest.fixture
def folder(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the killed child left, beside its base; the daemon works in the run's directory."""
    found = unpack("training", tmp_path / "training")
    (found / "base").symlink_to(tiny_base)
    monkeypatch.chdir(found / "run")
    return found


@pytest.fixture
def job(folder: Path) -> Job:
    return read_job(folder / "run" / "job.json")


def test_the_checkpoint_is_of_the_job(folder: Path, job: Job) -> None:
    found = checkpoints.find_latest(folder / "run" / CHECKPOINTS, job)

    assert base_digest(folder / "base") == job.base_digest
    assert found is not None, "it counts as another job's: the run would begin again"
    assert found.seal.step == recorded("training")["step"]
    assert found.seal.job == checkpoints.job_key(job)


async def test_the_run_goes_on_to_the_adapter_it_would_have_made(folder: Path, job: Job) -> None:
    said: list[TrainingProgress] = []
    known = recorded("training")

    async def told(progress: TrainingProgress) -> None:
        said.append(progress)

    async def wanted() -> bool:
        return True

    async with start_child(job) as child:
        done = await child.result(limit_s=LIMIT_S, on_progress=told, wanted=wanted)

    adapter = folder / "run" / done.path
    manifest = check_files(adapter)
    assert manifest.figures["resumed_from"] == known["step"]
    assert min(line.step for line in said if line.phase == "training") == known["step"] + 1
    assert furthest_apart(adapter / WEIGHTS, folder / REFERENCE) < FURTHEST
    if (manifest.versions["torch"], processor()) == (known["torch"], known["processor"]):
        assert done.content_hash == known["content_hash"]
