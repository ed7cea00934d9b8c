"""Make backups while the daemon runs: one at a time, as a job with a state."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from adaptd.daemon.store.backups.backup import back_up
from adaptd.daemon.store.backups.layout import STORE, BackupManifest, Place
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.database.encryption import StoreKey
from adaptd.daemon.wire.errors import AdaptdError, RefusedError

_log = structlog.get_logger(__name__)


class BackupJob(msgspec.Struct, frozen=True, kw_only=True):
    """The newest backup asked for. `phase`: waiting, store, adapters, policies or hashes.

    `done_bytes` of about `total_bytes` are copied; the copy of the store has no free space in it.
    """

    destination: str
    secrets: bool
    actor: str
    state: Literal["running", "done", "failed", "cancelled"] = "running"
    phase: str = "waiting"
    done_bytes: int = 0
    total_bytes: int = 0
    began_at: datetime
    took_s: float | None = None
    problem: str | None = None
    manifest: dict[str, Any] | None = None


class Backups:
    """A service: `run` does what `start` asks for."""

    def __init__(self, database: Database, place: Place, *, key: StoreKey | None) -> None:
        self._database = database
        self._place = place
        self._key = key
        self._asked: asyncio.Queue[None] = asyncio.Queue(1)
        self._working: asyncio.Task[BackupManifest] | None = None
        self._job: BackupJob | None = None
        self._unwanted = False

    async def run(self) -> None:
        """Work until cancelled; a backup under way then leaves nothing."""
        while True:
            await self._asked.get()
            try:
                await self._make_backup()
            finally:
                if self._job and self._job.state == "running":
                    self._update_job(state="cancelled")

    def start(self, destination: str, *, secrets: bool, actor: str) -> BackupJob:
        """Ask for a backup at an absolute path on the daemon's machine.

        Raises:
            RefusedError: one is under way, or the path cannot be taken.
        """
        if self._job is not None and self._job.state == "running":
            where = self._job.destination
            raise RefusedError("backup", f"one to {where} is under way", "Wait for it")
        if not Path(destination).is_absolute():
            raise RefusedError(destination, "it is no absolute path", "Give one")
        self._job = BackupJob(
            destination=destination, secrets=secrets, actor=actor, began_at=datetime.now(UTC)
        )
        self._asked.put_nowait(None)
        return self._job

    def job(self) -> BackupJob:
        """The state of the newest job. Raises RefusedError where none was asked for."""
        if self._job is None:
            raise RefusedError("backup", "none was made since the start", "Run `adaptd backup`")
        if self._job.state == "running" and self._job.phase == "store":
            return msgspec.structs.replace(self._job, done_bytes=self._copied_bytes())
        return self._job

    def cancel(self) -> BackupJob:
        """Stop the running backup and remove what it wrote. Safe to repeat."""
        job = self.job()
        self._unwanted = True
        if self._working is not None:
            self._working.cancel()
        return job

    async def _make_backup(self) -> None:
        job, began = self.job(), time.monotonic()
        self._unwanted = False
        self._working = asyncio.create_task(self._copy_installation(job))
        try:
            manifest = await self._working
        except asyncio.CancelledError:
            self._update_job(state="cancelled")
            self._unwanted = True
            if (task := asyncio.current_task()) and task.cancelling():
                raise
        except AdaptdError as error:
            self._update_job(state="failed", problem=str(error))
            _log.error("backup_failed", destination=job.destination, problem=str(error))
        except Exception as error:  # told in the job, too: else its command waits for ever
            self._update_job(state="failed", problem=f"it failed ({type(error).__name__})")
            raise
        else:
            took_s = round(time.monotonic() - began, 3)
            self._update_job(state="done", took_s=took_s, manifest=summary(manifest))
            _log.info("backup_made", destination=job.destination, took_s=took_s, by=job.actor)
        finally:
            self._working = None

    async def _copy_installation(self, job: BackupJob) -> BackupManifest:
        return await self._database.aside(
            lambda cursor: back_up(
                cursor,
                self._place,
                Path(job.destination),
                key=self._key,
                secrets=job.secrets,
                told=self._note_progress,
            )
        )

    def _note_progress(self, phase: str, done: int, total: int) -> None:
        """On the thread that works."""
        if self._unwanted:
            raise RefusedError("backup", "it is not wanted any more", "Nothing was left")
        self._update_job(phase=phase, done_bytes=done, total_bytes=total)

    def _update_job(self, **values: Any) -> None:
        if self._job is not None:
            self._job = msgspec.structs.replace(self._job, **values)

    def _copied_bytes(self) -> int:
        assert self._job is not None
        path = Path(self._job.destination)
        try:
            return (path.with_name(f".{path.name}.partial") / STORE).stat().st_size
        except OSError:
            return 0


def summary(manifest: BackupManifest) -> dict[str, Any]:
    """A manifest without its list of files."""
    shown: dict[str, Any] = msgspec.to_builtins(manifest)
    return {**shown, "files": len(manifest.files), "bytes": manifest.bytes}
