"""From policy, snapshot and server to a job."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from daemon.domain.errors import RefusedError
from daemon.domain.states import RunState
from daemon.policy.model import Train
from daemon.store.datasets import Snapshot
from daemon.store.runs import Run
from daemon.training.job import Job
from daemon.training.lora_rules import ServedLora
from daemon.training.plan import Ground, ParentShape, default_micro_batch, plan_job

NOW = datetime(2026, 11, 22, tzinfo=UTC)
RUN = Run(
    run_id="run-1", model="support", policy_version=1, state=RunState.TRAINING, created_at=NOW
)
SNAPSHOT = Snapshot(
    snapshot_id="s1",
    model="support",
    policy_version=1,
    as_of=NOW,
    content_hash="c" * 64,
    path="/snapshots/s1",
    train_rows=190,
    holdout_rows=50,
    golden_rows=120,
    holdout_version=1,
    created_at=NOW,
    manifest={},
)
GROUND = Ground(
    base="tiny",
    base_dir="/bases/tiny",
    base_digest="b",
    dtype="bfloat16",
    max_model_len=512,
    served=ServedLora(max_rank=8, targets=("v_proj", "q_proj")),
    threads=2,
    niceness=5,
)
LIVE = ParentShape(
    name="support@v1-00000000",
    path="/adapters/support@v1-00000000",
    base_digest="b",
    rank=8,
    alpha=32,
    targets=["q_proj", "v_proj"],
)


def job(*, run: Run = RUN, snapshot: Snapshot = SNAPSHOT, parent: Any = None, **train: Any) -> Job:
    return plan_job(run, Train(**train), snapshot, GROUND, directory=Path("/runs/1"), parent=parent)


def test_epochs_become_steps() -> None:
    assert job(epochs=3, batch=16).steps == 36
    assert job(steps=40, batch=16).steps == 40
    assert job(epochs=0.01, batch=16).steps == 1


def test_the_job_names_what_the_snapshot_holds_and_the_server_serves() -> None:
    planned = job()
    assert planned.train_path == "/snapshots/s1/train.parquet"
    assert planned.probes_path == "/snapshots/s1/probes.parquet"
    assert planned.targets == ["q_proj", "v_proj"]
    assert (planned.rank, planned.alpha) == (8, 16)
    assert planned.max_length == 512


def test_training_continues_from_the_parent_with_its_own_scale() -> None:
    planned = job(parent=LIVE)
    assert planned.parent is not None
    assert planned.parent.name == LIVE.name
    assert planned.alpha == 32


def test_the_seed_comes_from_what_is_learnt_not_from_the_run() -> None:
    other_run = msgspec.structs.replace(RUN, run_id="run-2")
    other_data = msgspec.structs.replace(SNAPSHOT, content_hash="d" * 64)
    assert job(run=other_run).seed == job().seed
    assert job(snapshot=other_data).seed != job().seed
    assert job(parent=LIVE).seed != job().seed


def test_a_lowered_micro_batch_is_kept() -> None:
    assert job(batch=16).micro_batch == 8
    assert job(run=msgspec.structs.replace(RUN, micro_batch=4), batch=16).micro_batch == 4
    assert [default_micro_batch(batch) for batch in (1, 16, 24, 64, 17)] == [1, 8, 8, 8, 1]


def test_a_rank_the_server_does_not_serve_is_refused_before_training() -> None:
    with pytest.raises(RefusedError, match="rank 16 is above the server's max_lora_rank of 8"):
        job(rank=16)


@pytest.mark.parametrize("change", [{"rank": 4}, {"targets": ["q_proj"]}, {"base_digest": "other"}])
def test_a_parent_of_another_shape_or_base_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="start_from: base"):
        job(parent=msgspec.structs.replace(LIVE, **change))
