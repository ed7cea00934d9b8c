"""Snapshots, jobs and children for the tests of training."""

import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from adaptd.daemon.domain.bases import base_digest
from adaptd.daemon.domain.policies import StoredPolicy
from adaptd.daemon.domain.states import RunState
from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.lifecycle.adapters import AdapterStore
from adaptd.daemon.store.lifecycle.runs import Run, RunStore
from adaptd.daemon.store.lifecycle.snapshots import Snapshot, SnapshotStore
from adaptd.daemon.training.job import Job, Line, decode_line, write_job
from adaptd.daemon.training.lora_rules import ServedLora
from adaptd.daemon.training.preparation import TrainerSettings
from adaptd.daemon.training.service import TrainingService
from tests.support.tiny_model import FORMAT
from tests.support.waiting import LIMIT_S

SERVED = ServedLora(max_rank=8, targets=("q_proj", "v_proj"))
POLICY = """\
version: 1
model: support
base: tiny
train: {steps: 12, batch: 8, learning_rate: 0.01, max_tokens: 64, max_time: 5m}
"""


def rows(count: int = 32, *, seed: int = 0) -> list[dict[str, Any]]:
    """Four kinds of prompts of different lengths; the answer tells the kind: easy to learn."""
    rng = random.Random(seed)
    made = []
    for n in range(count):
        kind = n % 4
        prompt = [1, *(100 + 10 * kind + rng.randrange(5) for _ in range(8 + rng.randrange(20)))]
        made.append(
            {
                "input_ids": [*prompt, 500 + kind, 2],
                "loss_mask": [0] * len(prompt) + [1, 1],
                "weight": 1.0,
                "interaction": f"i{n}",
                "feedback": f"f{n}",
                "group": f"g{n}",
            }
        )
    return made


def write_snapshot(folder: Path, train: Sequence[dict[str, Any]] | None = None) -> Path:
    """Write the two files that a trainer reads."""
    folder.mkdir(parents=True, exist_ok=True)
    train = rows() if train is None else train
    pq.write_table(pa.Table.from_pylist(list(train)), folder / "train.parquet")
    probes = [
        {"ids": row["input_ids"], "context_tokens": row["loss_mask"].index(1)}
        for row in rows(10, seed=5)
    ]
    pq.write_table(pa.Table.from_pylist(probes), folder / "probes.parquet")
    return folder


def a_job(home: Path, base: Path | None = None, **changes: Any) -> Job:
    """A small job on the snapshot in home/snapshot, in the run directory home/run."""
    job = Job(
        run_id="run-1",
        model="support",
        base="tiny",
        base_dir=str(base or home / "tiny"),
        base_digest=base_digest(base) if base else "b" * 64,
        snapshot_id="s1",
        snapshot_hash="c" * 64,
        train_path=str(home / "snapshot" / "train.parquet"),
        probes_path=str(home / "snapshot" / "probes.parquet"),
        directory=str(home / "run"),
        rank=8,
        alpha=16,
        targets=["q_proj", "v_proj"],
        learning_rate=0.01,
        steps=12,
        batch=8,
        micro_batch=8,
        max_length=64,
        max_time_s=300,
        checkpoint_every=3,
        seed=1,
        threads=2,
        dtype=FORMAT,
    )
    return msgspec.structs.replace(job, **changes)


CHILD = ("-m", "adaptd.daemon.training.worker")


def command(job: Job, program: Sequence[str] = CHILD) -> list[str]:
    """Write the job, and return the command that starts a child on it."""
    return [sys.executable, *program, str(write_job(job))]


def train(job: Job, program: Sequence[str] = CHILD) -> tuple[int, list[Line]]:
    """Run a child to its end, and return its exit code and its lines."""
    words = command(job, program)
    done = subprocess.run(words, stdout=subprocess.PIPE, check=False, timeout=LIMIT_S)
    lines = [decode_line(line) for line in done.stdout.splitlines()]
    assert None not in lines, "something else was printed between our lines"
    return done.returncode, [line for line in lines if line is not None]


@dataclass
class TrainingWorld:
    """A store with one policy and one snapshot, and the service over it."""

    home: Path
    base: Path
    child: Sequence[str] = ()
    policy: str = POLICY
    store_progress_s: float = 1.0
    database: Database = field(default_factory=lambda: Database.open(":memory:"))

    def __post_init__(self) -> None:
        self.runs = RunStore(self.database)
        self.adapters = AdapterStore(self.database)
        self.snapshots = SnapshotStore(self.database)
        self.book = PolicyBook()
        stored = StoredPolicy(
            model="support",
            version=1,
            sha256="0" * 64,
            path="policies/support.yaml",
            yaml=self.policy,
            loaded_at=datetime.now(UTC),
            applied_at=datetime.now(UTC),
        )
        version = self.book.remember(stored)
        assert version, "the test's policy is wrong"
        self.book.settle({"support": version}, [])
        self.service = self.a_service()

    async def served_format(self) -> str:
        return FORMAT

    def a_service(self) -> TrainingService:
        """A new service, as after a restart of the daemon: only the store is left."""
        settings = TrainerSettings(
            home=self.home,
            bases={"tiny": self.base},
            served=SERVED,
            max_model_len=512,
            tick_s=0.05,
            command=self.child,
            store_progress_s=self.store_progress_s,
        )
        return TrainingService(
            settings,
            served_format=self.served_format,
            runs=self.runs,
            adapters=self.adapters,
            snapshots=self.snapshots,
            book=self.book,
        )

    async def a_run(self, *, start_from: str | None = None) -> Run:
        """A run that waits for training."""
        run = await self.runs.create(
            "support",
            policy_version=1,
            trigger={},
            start_from=start_from,
            actor="test",
            now=datetime.now(UTC),
        )
        snapshot = Snapshot(
            snapshot_id="s1",
            model="support",
            policy_version=1,
            as_of=datetime.now(UTC),
            content_hash="c" * 64,
            path=str(write_snapshot(self.home / "snapshots" / "s1")),
            train_rows=32,
            holdout_rows=0,
            golden_rows=0,
            holdout_version=1,
            created_at=datetime.now(UTC),
            manifest={},
        )
        await self.snapshots.add(snapshot, [])
        await self.runs.claim(
            RunState.QUEUED, RunState.BUILDING, actor="test", now=datetime.now(UTC)
        )
        await self.runs.set_snapshot(run.run_id, "s1")
        return await self.runs.get(run.run_id)

    async def claimed_run(self) -> Run:
        run = await self.a_run()
        await self.runs.claim(
            RunState.BUILDING, RunState.TRAINING, actor="test", now=datetime.now(UTC)
        )
        return await self.runs.get(run.run_id)

    async def job(self, run: Run) -> Job:
        """The job that the service would give a child."""
        return await self.service._preparation.make_job(run)

    async def at_step(self, run: Run, step: int) -> bool:
        """True where the run has reached the step. A run that failed fails the test at once."""
        seen = await self.runs.get(run.run_id)
        assert seen.state is not RunState.FAILED, seen.reason
        return seen.progress is not None and seen.progress["step"] >= step
