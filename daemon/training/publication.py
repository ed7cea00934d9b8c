"""From an adapter that waits in a run directory to a numbered version that stays."""

import asyncio
import contextlib
import shutil
from datetime import UTC, datetime
from pathlib import Path

import structlog

from adaptd.daemon.domain.states import AdapterState, RunState
from adaptd.daemon.store.lifecycle.adapters import AdapterRow, AdapterStore, Origin
from adaptd.daemon.store.lifecycle.runs import Run, RunStore
from adaptd.daemon.training import adapter_files
from adaptd.daemon.training.adapter_files import Manifest
from adaptd.daemon.training.job import CHECKPOINTS
from adaptd.daemon.training.lora_rules import config_problems, key_problems
from adaptd.daemon.training.preparation import TrainerSettings, read_json
from adaptd.daemon.wire.errors import AdaptdError, RefusedError

_log = structlog.get_logger(__name__)
_ACTOR = "training"


class Publication:
    """The row first, then the rename, then the run's state: a restart repeats what is left."""

    def __init__(
        self, settings: TrainerSettings, *, runs: RunStore, adapters: AdapterStore
    ) -> None:
        self._settings = settings
        self._runs = runs
        self._adapters = adapters

    async def waiting(self, run: Run) -> Path | None:
        """The finished adapter in the run's directory."""
        return await asyncio.to_thread(adapter_files.staged, self._settings.directory(run))

    async def publish(self, run: Run) -> None:
        """Number the adapter, move it where it stays, and the run to `trained`.

        Raises:
            AdaptdError: it is damaged, vLLM would refuse it, or the run was cancelled.
            OSError: the disk refused.
        """
        staged = await self.waiting(run)
        row = await (self._adapters.get(run.adapter) if run.adapter else self._number(run, staged))
        try:
            await asyncio.to_thread(adapter_files.place, staged, Path(row.path))
            await self._finish(run, row)
        except (AdaptdError, OSError) as error:
            await self._withdraw(row, str(error))
            raise

    async def tidy(self, run: Run) -> None:
        """Remove what a run that is over no longer needs. Its job and log stay."""
        directory = self._settings.directory(run)
        for name in (CHECKPOINTS, "cache"):
            await asyncio.to_thread(shutil.rmtree, directory / name, ignore_errors=True)

    async def _number(self, run: Run, staged: Path | None) -> AdapterRow:
        if staged is None:
            raise RefusedError(f"run {run.run_id}", "its adapter is gone", "Start another run")
        manifest = await asyncio.to_thread(self._checked, staged)
        folder = self._settings.adapters
        found = await asyncio.to_thread(adapter_files.highest_number, folder, run.model)
        origin = Origin(
            content_hash=manifest.content_hash,
            base_digest=manifest.base_digest,
            run_id=run.run_id,
            parent=manifest.parent,
            snapshot_id=manifest.snapshot_id,
        )
        now = datetime.now(UTC)
        return await self._adapters.add(
            run.model, origin, folder=folder, found=found, actor=_ACTOR, now=now
        )

    def _checked(self, staged: Path) -> Manifest:
        """What the child made, read again with the server's rules in hand."""
        manifest = adapter_files.check_files(staged)
        served = self._settings.served
        problems = config_problems(read_json(staged / adapter_files.CONFIG), served)
        problems += key_problems(adapter_files.tensor_names(staged), served)
        if problems:
            remedy = "Train with the rank and modules that vLLM was started with"
            raise RefusedError(f"adapter {staged.name}", problems[0], remedy)
        return manifest

    async def _finish(self, run: Run, row: AdapterRow) -> None:
        manifest = await asyncio.to_thread(adapter_files.check_files, Path(row.path))
        await self._runs.move(
            run.run_id,
            RunState.TRAINED,
            actor=_ACTOR,
            reason=f"trained {row.name}",
            evidence=manifest.figures,
            now=datetime.now(UTC),
        )
        _log.info("adapter_trained", run=run.run_id, adapter=row.name)

    async def _withdraw(self, row: AdapterRow, reason: str) -> None:
        now = datetime.now(UTC)
        with contextlib.suppress(RefusedError):  # already in use: then it is not ours to withdraw
            await self._adapters.move(
                row.name, AdapterState.RETIRED, actor=_ACTOR, reason=reason, now=now
            )
