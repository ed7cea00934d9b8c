"""A backup of an earlier release is whole, and is restored into another home."""

from datetime import datetime
from pathlib import Path

import msgspec
import pytest

from adaptd.daemon.domain.states import AdapterState
from adaptd.daemon.store.backups.layout import Place, read_manifest, verify_backup
from adaptd.daemon.store.backups.restore import restore_backup
from adaptd.daemon.store.backups.restored import RestoreStore
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.ingest.event_reads import EventReads
from adaptd.daemon.store.lifecycle.adapter_seal import broken_seal
from adaptd.daemon.store.lifecycle.adapters import AdapterStore
from adaptd.daemon.store.lifecycle.routes import RouteStore
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.store.lifecycle.snapshots import SnapshotStore
from adaptd.daemon.wire.routes import RouteTable
from tests.net.artifacts import as_json, recorded, unpack
from tests.support.clock import Clock
from tests.support.commands import run_command

SECRETS = ("secret.key", "tokens.json", "control.token")


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return unpack("backup", tmp_path / "backup")


@pytest.fixture
def clock() -> Clock:
    """A moment after the backup."""
    return Clock(msgspec.convert(recorded("files")["asked_at"], datetime))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "other" / "home", tmp_path / "other" / "policies")


def test_it_is_whole(backup: Path) -> None:
    manifest = verify_backup(backup)

    counts = recorded("store")["events"]["counts"]
    assert manifest == read_manifest(backup)
    assert manifest.missing == {}
    assert manifest.rows["interactions"] == counts["interactions"]
    assert manifest.rows["feedback"] == counts["feedback"]
    kept = [row for row in recorded("store")["adapters"] if row["state"] != "erased"]
    assert sorted(manifest.adapters) == sorted(row["name"] for row in kept)


def test_the_command_finds_it_whole(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_command("backup", str(backup), "--verify", "--json")
    assert (done.code, done.data["whole"]) == (0, True), done.err


async def test_it_comes_back_in_another_home(
    backup: Path, installation: Path, place: Place, clock: Clock
) -> None:
    done = restore_backup(backup, place, key=None, replace=False, clock=clock)

    assert (done.moved_aside, done.kept, done.missing) == ([], [], {})
    for name in SECRETS:
        assert (place.home / name).read_bytes() == (installation / "home" / name).read_bytes()
    policies = {path.name for path in (installation / "policies").iterdir()}
    assert {path.name for path in place.policies.iterdir()} == policies
    database = Database.open(place.store, threads=1)
    try:
        await check_rows(database)
        await check_paths(database, place)
    finally:
        database.close()


async def check_rows(database: Database) -> None:
    """All that was stored is there; runs whose files are in no backup have ended."""
    known = recorded("store")
    counts = as_json(await EventReads(database).counts())
    restore = await RestoreStore(database).newest()

    assert counts == known["events"]["counts"]
    assert restore is not None
    assert restore.released_at is None, "nothing moves yet"
    table = msgspec.convert(known["rollouts"]["table"], RouteTable)
    current = await RouteStore(database).current()
    assert current is not None
    assert (current.epoch, current.routes) == (table.epoch, table.routes)
    assert await RunStore(database).active("support") is None
    ended = {run["run_id"]: run["state"] for run in known["runs"]["all"] if run["finished_at"]}
    found = {run.run_id: run.state for run in await RunStore(database).list(limit=100)}
    assert ended.items() <= found.items()


async def check_paths(database: Database, place: Place) -> None:
    """Rows name the new home, and the files there are those that were sealed."""
    versions = await AdapterStore(database).list()
    adapters = [row for row in versions if row.state is not AdapterState.ERASED]
    assert [broken_seal(row) for row in adapters] == [None] * 5
    assert {Path(row.path).parent for row in adapters} == {place.home / "adapters"}
    snapshots = await SnapshotStore(database).list("support")
    assert {Path(row.path).parent for row in snapshots} == {place.home / "snapshots"}
