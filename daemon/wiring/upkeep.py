"""Backups and restores as the surfaces ask for them."""

from typing import Any

from adaptd.daemon.recovery.backups import Backups
from adaptd.daemon.recovery.restored_store import Restoration


class StoreUpkeep:
    """Implements the surfaces' `Upkeep` port."""

    def __init__(self, backups: Backups, restoration: Restoration) -> None:
        self._backups = backups
        self.restoration = restoration

    def start_backup(self, destination: str, *, secrets: bool, actor: str) -> Any:
        return self._backups.start(destination, secrets=secrets, actor=actor)

    def backup_job(self) -> Any:
        return self._backups.job()

    def cancel_backup(self) -> Any:
        return self._backups.cancel()

    async def release_store(self, *, reason: str, actor: str) -> Any:
        await self.restoration.release(actor=actor, reason=reason)
        return self.restoration.document()
