"""The publication of a finished adapter: from the run directory to a numbered version."""

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
    """Publishes adapters in steps that a restart can repeat.

    1. Check the adapter against the server's rules and write its row, with its number.
    2. Move its directory to its place for good.
    3. Move the run to `trained`.
    """

    def __init__(
        self, settings: TrainerSettings, *, runs: RunStore, adapters: AdapterStore
    ) -> None:
        self._settings = settings
        self._runs = runs
        self._adapters = adapters

    async def find_staged(self, run: Run) -> Path | None:
        """The finished adapter in the run's directory, or None."""
        return await asyncio.to_thread(adapter_files.find_staged, self._settings.directory(run))

    async def publish(self, run: Run) -> None:
        """Number the adapter, move it to its place, and move the run to `trained`.

        Raises:
            AdaptdError: the adapter is damaged, vLLM would refuse it, or the run was cancelled.
            OSError: the disk refused.
        """
        staged = await self.find_staged(run)
        if run.adapter:
            row = await self._adapters.get(run.adapter)
        else:
            row = await self._add_version(run, staged)
        try:
            await asyncio.to_thread(adapter_files.place_adapter, staged, Path(row.path))
            await self._finish_run(run, row)
        except (AdaptdError, OSError) as error:
            await self._retire_version(row, str(error))
            raise

    async def tidy(self, run: Run) -> None:
        """Remove checkpoints and cache of a run that is over. Its job and log stay."""
        directory = self._settings.directory(run)
        for name in (CHECKPOINTS, "cache"):
            await asyncio.to_thread(shutil.rmtree, directory / name, ignore_errors=True)

    async def _add_version(self, run: Run, staged: Path | None) -> AdapterRow:
        if staged is None:
            raise RefusedError(f"run {run.run_id}", "its adapter is gone", "Start another run")
        manifest = await asyncio.to_thread(self._check_staged, staged)
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

    def _check_staged(self, staged: Path) -> Manifest:
        """Read the child's adapter again, and check it against the server's rules."""
        manifest = adapter_files.check_files(staged)
        served = self._settings.served
        problems = config_problems(read_json(staged / adapter_files.CONFIG), served)
        problems += key_problems(adapter_files.tensor_names(staged), served)
        if problems:
            remedy = "Train with the rank and modules that vLLM was started with"
            raise RefusedError(f"adapter {staged.name}", problems[0], remedy)
        return manifest

    async def _finish_run(self, run: Run, row: AdapterRow) -> None:
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

    async def _retire_version(self, row: AdapterRow, reason: str) -> None:
        with contextlib.suppress(RefusedError):  # a version already in use stays in use
            await self._adapters.move(row.name, AdapterState.RETIRED, actor=_ACTOR, reason=reason)
