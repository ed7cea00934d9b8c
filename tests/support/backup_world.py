"""An installation on disk that a backup can be made of."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from adaptd.daemon.store.backups.backup import back_up
from adaptd.daemon.store.backups.layout import BackupManifest, Place, Told
from adaptd.daemon.store.backups.restore import restore_backup
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.database.encryption import StoreKey
from adaptd.daemon.store.lifecycle.adapters import AdapterRow, AdapterStore, Origin
from tests.support.clock import Clock
from tests.support.ingesting import Ingesting

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
restore = partial(restore_backup, clock=Clock(NOW))


@dataclass
class Installation:
    """A home with store, adapters, snapshot manifests, policies and secrets."""

    folder: Path
    key: StoreKey | None = None
    clock: Clock = field(default_factory=lambda: Clock(NOW))
    database: Database = field(init=False)
    ingesting: Ingesting = field(init=False)

    def __post_init__(self) -> None:
        self.place = Place(self.folder / "home", self.folder / "policies")
        self.place.policies.mkdir(parents=True)
        (self.place.policies / "support.yaml").write_text("version: 1\n")
        self.open()
        for name in ("secret.key", "tokens.json", "control.token"):
            (self.place.home / name).write_text(f"{name} of {self.folder.name}")
        manifest = self.place.home / "snapshots" / "snapshot-1" / "manifest.json"
        manifest.parent.mkdir(parents=True)
        manifest.write_text("{}")
        (manifest.parent / "train.parquet").write_bytes(b"prompts")

    def open(self) -> None:
        self.database = Database.open(self.place.store, key=self.key, threads=1)
        self.ingesting = Ingesting(self.database, self.clock)

    async def adapter(self, letter: str = "a") -> AdapterRow:
        """A sealed version, with its row."""
        adapters = AdapterStore(self.database)
        origin = Origin(content_hash=letter * 64, base_digest="b" * 64)
        folder = self.place.home / "adapters"
        row = await adapters.add("support", origin, folder=folder, actor="test", now=self.clock())
        _write_sealed(Path(row.path), row.content_hash, letter.encode() * 1000)
        return row

    async def back_up(
        self, destination: Path, *, secrets: bool = True, told: Told = lambda *_: None
    ) -> BackupManifest:
        return await self.database.aside(
            lambda cursor: back_up(
                cursor,
                self.place,
                destination,
                key=self.key,
                secrets=secrets,
                told=told,
                clock=self.clock,
            )
        )


def _write_sealed(directory: Path, content_hash: str, weights: bytes) -> None:
    directory.mkdir(parents=True)
    files = {"adapter_model.safetensors": hashlib.sha256(weights).hexdigest()}
    seal = json.dumps({"content_hash": content_hash, "files": files})
    for name, content in {
        "adapter_model.safetensors": weights,
        "manifest.json": seal.encode(),
    }.items():
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o444)
