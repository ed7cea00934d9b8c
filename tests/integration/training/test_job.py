"""The lines and files between the daemon and a child."""

import subprocess
import sys
from pathlib import Path

from adaptd.daemon.domain.states import FailureCause
from adaptd.daemon.training.job import (
    Done,
    Failed,
    TrainingProgress,
    decode_line,
    encode_line,
    read_job,
    write_job,
)
from tests.support.training_world import a_job


def test_lines_come_back_as_they_were() -> None:
    for line in (
        TrainingProgress(phase="training", step=3, total=36, loss=0.5),
        Done(path="/runs/1/adapter-00", content_hash="00", figures={"rows": 3}),
        Failed(cause=FailureCause.NAN, message="the loss of step 3 is nan"),
    ):
        assert decode_line(encode_line(line)) == line


def test_what_a_library_prints_is_no_line() -> None:
    for noise in (b"Loading weights: 100%\n", b"{}\n", b'{"type":"other"}\n', b"\xff\n", b"\n"):
        assert decode_line(noise) is None


def test_a_job_survives_its_file(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    assert read_job(write_job(job)) == job


def test_the_daemons_side_of_training_never_loads_torch() -> None:
    question = "import adaptd.daemon.training.service, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", question], check=False).returncode == 0
