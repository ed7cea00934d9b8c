"""The key by which a checkpoint knows its job, across releases."""

from pathlib import Path

import msgspec

from adaptd.daemon.training.job import read_job, write_job
from adaptd.daemon.training.worker.checkpoints import find_latest, job_key, seal_checkpoint
from tests.support.training_world import a_job

HOME = Path("/home/adaptd")
# As computed by the release before jobs had a method, with a_job of this same content.
KEY_WITHOUT_METHOD = "2aef8d1707e8f2a16b025f75dc36c455cfaa7d86100e01e70a6a7cb85f4c9ce2"


def test_a_job_of_the_first_method_keeps_the_key_it_had_before_methods() -> None:
    assert job_key(a_job(HOME, dtype="float32")) == KEY_WITHOUT_METHOD


def test_another_method_is_another_job() -> None:
    assert job_key(a_job(HOME, method="other")) != job_key(a_job(HOME))


def test_a_job_file_without_a_method_loads_and_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    path = write_job(a_job(tmp_path))
    old = msgspec.json.decode(path.read_bytes())
    del old["method"]
    path.write_bytes(msgspec.json.encode(old))
    folder = tmp_path / "checkpoints"
    written = folder / ".fresh" / "checkpoint-3"
    written.mkdir(parents=True)
    (written / "optimizer.pt").write_bytes(b"state")
    job = read_job(path)

    seal_checkpoint(written, folder, step=3, elapsed_s=1.5, job=a_job(tmp_path, method="sft"))

    assert job.method == "sft"
    found = find_latest(folder, job)
    assert found is not None
    assert found.seal.step == 3
