"""The parts of a run's job: policy, snapshot, base and parent."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from adaptd.daemon.domain.bases import base_digest
from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.store.lifecycle.adapters import AdapterStore
from adaptd.daemon.store.lifecycle.runs import Run
from adaptd.daemon.store.lifecycle.snapshots import SnapshotStore
from adaptd.daemon.training import adapter_files
from adaptd.daemon.training.job import Job
from adaptd.daemon.training.lora_rules import ServedLora
from adaptd.daemon.training.plan import GroundFacts, ParentFacts, plan_job
from adaptd.daemon.wire.errors import RefusedError

# 16 rows of 80 tokens took 0.9 GiB more than 8 on a CPU, and no less time.
LARGEST_MICRO_BATCH_CPU, LARGEST_MICRO_BATCH_GPU = 8, 16


class TrainerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's settings for training.

    `python` is the interpreter with torch, None for this one. `command` replaces the child's.
    """

    home: Path
    bases: Mapping[str, Path]
    served: ServedLora
    max_model_len: int
    python: Path | None = None
    threads: int = 2
    niceness: int = 5
    largest_micro_batch: int = LARGEST_MICRO_BATCH_CPU
    tick_s: float = 1.0
    store_progress_s: float = 1.0  # a fast trainer reports more than anybody reads
    command: Sequence[str] = ()

    @property
    def adapters(self) -> Path:
        return self.home.absolute() / "adapters"

    def directory(self, run: Run) -> Path:
        return self.home.absolute() / "runs" / run.run_id


class Preparation:
    """Makes jobs. A run's job is the same every time, so a restart can resume."""

    def __init__(
        self,
        settings: TrainerSettings,
        *,
        served_format: Callable[[], Awaitable[str]],
        adapters: AdapterStore,
        snapshots: SnapshotStore,
        book: PolicyBook,
    ) -> None:
        self._settings = settings
        self._served_format = served_format
        self._adapters = adapters
        self._snapshots = snapshots
        self._book = book

    async def make_job(self, run: Run) -> Job:
        """The job of a run.

        Raises:
            AdaptdError: a part is missing, or the server would not serve the result.
        """
        version = self._book.version(run.model, run.policy_version)
        if run.snapshot_id is None:
            raise RefusedError(f"run {run.run_id}", "it has no snapshot", "Start another run")
        snapshot = await self._snapshots.get(run.snapshot_id)
        return plan_job(
            run,
            version.policy.train,
            snapshot,
            await self._gather_ground(version.policy.base),
            directory=self._settings.directory(run),
            parent=await self._read_parent(run.start_from) if run.start_from else None,
        )

    async def _gather_ground(self, base: str) -> GroundFacts:
        settings = self._settings
        if (directory := settings.bases.get(base)) is None:
            remedy = "Name its directory in the setting bases"
            raise RefusedError(f"base {base}", "it is not known", remedy)
        return GroundFacts(
            base=base,
            base_dir=str(directory.absolute()),
            base_digest=await asyncio.to_thread(base_digest, directory),
            dtype=await self._served_format(),
            max_model_len=settings.max_model_len,
            served=settings.served,
            threads=settings.threads,
            niceness=settings.niceness,
            largest_micro_batch=settings.largest_micro_batch,
        )

    async def _read_parent(self, name: str) -> ParentFacts:
        row = await self._adapters.get(name)
        path = Path(row.path)  # absolute, as it was stored
        await asyncio.to_thread(adapter_files.check_files, path)
        config = await asyncio.to_thread(read_json, path / adapter_files.CONFIG)
        return ParentFacts(
            name=name,
            path=row.path,
            base_digest=row.base_digest,
            rank=config["r"],
            alpha=config["lora_alpha"],
            targets=config["target_modules"],
        )


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes())
