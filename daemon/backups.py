"""Makes backups while the daemon runs: one at a time, as a job that is asked about."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from daemon.domain.errors import AdaptdError, RefusedError
from daemon.store.backup import back_up
from daemon.store.backup_files import STORE, BackupManifest, Place
from daemon.store.database import Database
from daemon.store.encryption import StoreKey

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
                await self._make()
            finally:
                if self._job and self._job.state == "running":
                    self._become(state="cancelled")

    def start(self, destination: str, *, secrets: bool, actor: str) -> BackupJob:
        """Ask for one at an absolute path on the daemon's machine.

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
        """How the newest one goes. Raises RefusedError where none was asked for."""
        if self._job is None:
            raise RefusedError("backup", "none was made since the start", "Run `adaptd backup`")
        if self._job.state == "running" and self._job.phase == "store":
            return msgspec.structs.replace(self._job, done_bytes=self._copied())
        return self._job

    def cancel(self) -> BackupJob:
        """Stop the one under way and remove what it wrote. Safe to repeat."""
        job = self.job()
        self._unwanted = True
        if self._working is not None:
            self._working.cancel()
        return job

    async def _make(self) -> None:
        job, began = self.job(), time.monotonic()
        self._unwanted = False
        self._working = asyncio.create_task(self._work(job))
        try:
            manifest = await self._working
        except asyncio.CancelledError:
            self._become(state="cancelled")
            self._unwanted = True
            if (task := asyncio.current_task()) and task.cancelling():
                raise
        except AdaptdError as error:
            self._become(state="failed", problem=str(error))
            _log.error("backup_failed", destination=job.destination, problem=str(error))
        except Exception as error:  # told in the job, too: else its command waits for ever
            self._become(state="failed", problem=f"it failed ({type(error).__name__})")
            raise
        else:
            took_s = round(time.monotonic() - began, 3)
            self._become(state="done", took_s=took_s, manifest=summary(manifest))
            _log.info("backup_made", destination=job.destination, took_s=took_s, by=job.actor)
        finally:
            self._working = None

    async def _work(self, job: BackupJob) -> BackupManifest:
        return await self._database.aside(
            lambda cursor: back_up(
                cursor,
                self._place,
                Path(job.destination),
                key=self._key,
                secrets=job.secrets,
                told=self._told,
            )
        )

    def _told(self, phase: str, done: int, total: int) -> None:
        """On the thread that works."""
        if self._unwanted:
            raise RefusedError("backup", "it is not wanted any more", "Nothing was left")
        self._become(phase=phase, done_bytes=done, total_bytes=total)

    def _become(self, **values: Any) -> None:
        if self._job is not None:
            self._job = msgspec.structs.replace(self._job, **values)

    def _copied(self) -> int:
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
