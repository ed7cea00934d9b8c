"""From policy, snapshot and server to a job. Stands alone as the pure core of the preparation."""

import hashlib
import math
from pathlib import Path

import msgspec

from adaptd.daemon.policy.model import Train
from adaptd.daemon.store.lifecycle.runs import Run
from adaptd.daemon.store.lifecycle.snapshots import Snapshot
from adaptd.daemon.training.job import Job, Parent
from adaptd.daemon.training.lora_rules import ServedLora, config_problems
from adaptd.daemon.wire.errors import RefusedError

_CHECKPOINTS = 8  # a kill costs an eighth of the run at most
_MOST_STEPS_BETWEEN = 50  # and far less of a long run


class GroundFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of server and machine that a job has to follow. `dtype` is the served one.

    `largest_micro_batch` bounds the rows that go through the model together.
    """

    base: str
    base_dir: str
    base_digest: str
    dtype: str
    max_model_len: int
    served: ServedLora
    threads: int
    niceness: int
    largest_micro_batch: int


class ParentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The version to continue from, as its own files describe it."""

    name: str
    path: str
    base_digest: str
    rank: int
    alpha: int
    targets: list[str]


def plan_job(
    run: Run,
    train: Train,
    snapshot: Snapshot,
    ground: GroundFacts,
    *,
    directory: Path,
    parent: ParentFacts | None,
) -> Job:
    """The job of a run: the same for the same run, policy version, snapshot, server and machine.

    Raises:
        RefusedError: the server would not serve the result, or the parent does not fit.
    """
    targets = sorted(ground.served.targets)
    alpha = parent.alpha if parent else 2 * train.rank
    _check_servable(run, train, ground, parent)
    rows = Path(snapshot.path).absolute()  # the child works in its run directory
    steps = train.steps or max(1, math.ceil(snapshot.train_rows * train.epochs / train.batch))
    return Job(
        run_id=run.run_id,
        model=run.model,
        base=ground.base,
        base_dir=ground.base_dir,
        base_digest=ground.base_digest,
        snapshot_id=snapshot.snapshot_id,
        snapshot_hash=snapshot.content_hash,
        train_path=str(rows / "train.parquet"),
        probes_path=str(rows / "probes.parquet"),
        directory=str(directory),
        parent=Parent(name=parent.name, path=parent.path) if parent else None,
        rank=train.rank,
        alpha=alpha,
        targets=targets,
        learning_rate=train.learning_rate,
        steps=steps,
        batch=train.batch,
        micro_batch=run.micro_batch
        or default_micro_batch(train.batch, largest=ground.largest_micro_batch),
        max_length=min(train.max_tokens, ground.max_model_len),
        max_time_s=train.max_time.total_seconds(),
        checkpoint_every=min(_MOST_STEPS_BETWEEN, max(1, steps // _CHECKPOINTS)),
        seed=_derive_seed(snapshot.content_hash, parent),
        threads=ground.threads,
        niceness=ground.niceness,
        dtype=ground.dtype,
    )


def default_micro_batch(batch: int, *, largest: int) -> int:
    """The number of rows that go through the model together: `largest` at most.

    The largest divisor of the batch, because micro-batches of two sizes cost a CPU further tensor
    shapes. Where it is below half of `largest`, the batch is cut into as few parts as possible, all
    of one size but the last: 13 rows into 7 and 6 for 8 at most.
    """
    divisor = max(size for size in range(1, largest + 1) if batch % size == 0)
    fewest_parts = math.ceil(batch / largest)
    return divisor if 2 * divisor >= largest else math.ceil(batch / fewest_parts)


def _check_servable(
    run: Run, train: Train, ground: GroundFacts, parent: ParentFacts | None
) -> None:
    config = {"r": train.rank, "target_modules": sorted(ground.served.targets)}
    if problems := config_problems(config, ground.served):
        remedy = "Change train.rank in the policy, or start vLLM for it"
        raise RefusedError(f"run {run.run_id}", problems[0], remedy)
    if parent is None:
        return
    shape = (parent.rank, sorted(parent.targets))
    if shape != (train.rank, sorted(ground.served.targets)):
        problem = f"{parent.name} has rank {parent.rank} on {', '.join(sorted(parent.targets))}"
        remedy = "Set train.start_from: base in the policy, or train.rank as it was"
        raise RefusedError(f"run {run.run_id}", problem, remedy)
    if parent.base_digest != ground.base_digest:
        problem = f"{parent.name} was trained on another base"
        raise RefusedError(f"run {run.run_id}", problem, "Set train.start_from: base in the policy")


def _derive_seed(snapshot_hash: str, parent: ParentFacts | None) -> int:
    # From the data, not from the run: the same training twice gives the same adapter.
    text = f"{snapshot_hash}:{parent.name if parent else ''}"
    return int(hashlib.sha256(text.encode()).hexdigest()[:7], 16)
