"""From policy, snapshot and server to a job."""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adaptd.daemon.domain.states import RunState
from adaptd.daemon.policy.model import Train
from adaptd.daemon.store.lifecycle.runs import Run
from adaptd.daemon.store.lifecycle.snapshots import Snapshot
from adaptd.daemon.training.job import Job
from adaptd.daemon.training.lora_rules import ServedLora
from adaptd.daemon.training.plan import GroundFacts, ParentFacts, default_micro_batch, plan_job
from adaptd.daemon.wire.errors import RefusedError

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
GROUND = GroundFacts(
    base="tiny",
    base_dir="/bases/tiny",
    base_digest="b",
    dtype="bfloat16",
    max_model_len=512,
    served=ServedLora(max_rank=8, targets=("v_proj", "q_proj")),
    threads=2,
    niceness=5,
    largest_micro_batch=8,
)
LIVE = ParentFacts(
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


@pytest.mark.parametrize(
    ("largest", "sizes"),
    [
        (8, {1: 1, 7: 7, 8: 8, 10: 5, 12: 6, 16: 8, 20: 5, 24: 8, 64: 8}),
        (8, {9: 5, 11: 6, 13: 7, 17: 6, 22: 8, 23: 8, 26: 7}),  # no good divisor
        (16, {8: 8, 11: 11, 13: 13, 16: 16, 17: 9, 24: 12, 64: 16}),
        (1, {11: 1}),
    ],
)
def test_a_batch_goes_through_the_model_in_few_parts_of_one_size(
    largest: int, sizes: dict[int, int]
) -> None:
    assert {batch: default_micro_batch(batch, largest=largest) for batch in sizes} == sizes
    for batch, size in sizes.items():
        assert math.ceil(batch / size) <= 2 * math.ceil(batch / largest)


def test_the_machine_bounds_the_micro_batch() -> None:
    on_gpu = msgspec.structs.replace(GROUND, largest_micro_batch=16)
    planned = plan_job(
        RUN, Train(batch=32), SNAPSHOT, on_gpu, directory=Path("/runs/1"), parent=None
    )
    assert planned.micro_batch == 16
    assert job(batch=32).micro_batch == 8


def test_a_rank_the_server_does_not_serve_is_refused_before_training() -> None:
    with pytest.raises(RefusedError, match="rank 16 is above the server's max_lora_rank of 8"):
        job(rank=16)


@pytest.mark.parametrize("change", [{"rank": 4}, {"targets": ["q_proj"]}, {"base_digest": "other"}])
def test_a_parent_of_another_shape_or_base_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="start_from: base"):
        job(parent=msgspec.structs.replace(LIVE, **change))
