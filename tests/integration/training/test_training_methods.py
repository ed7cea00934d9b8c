"""Training methods: a job names one, and one from outside the package runs like the package's."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adaptd.daemon.training.adapter_files import check_files
from adaptd.daemon.training.job import Done, Line
from adaptd.daemon.training.worker.methods import TrainingMethod, find_method, register_method
from adaptd.daemon.training.worker.methods.sft import SFT
from adaptd.daemon.training.worker.run import train as run_training
from adaptd.daemon.wire.errors import AdaptdError
from tests.support.broker import ROOT
from tests.support.training_world import a_job, rows, train, write_snapshot

TOY = ROOT / "tests" / "support" / "toy_method.py"


def test_a_method_from_outside_the_package_trains_by_its_name(
    tmp_path: Path, tiny_base: Path
) -> None:
    snapshot = write_snapshot(
        tmp_path / "snapshot"
    )  # for the probes; its rows are of another layout
    tokens = [row["input_ids"][:-1] for row in rows()]
    pq.write_table(pa.table({"tokens": tokens}), snapshot / "train.parquet")
    job = a_job(tmp_path, tiny_base, method="last_token")

    code, lines = train(job, program=(str(TOY),))

    assert code == 0, lines[-1]
    last = lines[-1]
    assert isinstance(last, Done)
    assert 0 < last.figures["loss_last"] < last.figures["loss_first"] <= 1
    manifest = check_files(Path(last.path))
    assert manifest.job["method"] == "last_token"


def test_a_method_that_the_trainer_does_not_have_is_refused_before_anything_is_loaded(
    tmp_path: Path,
) -> None:
    reported: list[Line] = []

    with pytest.raises(AdaptdError) as refused:
        run_training(a_job(tmp_path, method="ktoo"), reported.append)

    assert str(refused.value) == (
        "job: no training method is named 'ktoo'. Use one of those that this trainer has: sft."
    )
    assert reported == []


def test_two_methods_of_one_name_are_refused() -> None:
    assert find_method("sft") is SFT is register_method(SFT)

    other = TrainingMethod(name="sft", rows=SFT.rows, make_trainer=SFT.make_trainer)
    with pytest.raises(ValueError, match="two training methods are named sft"):
        register_method(other)
