"""Backups: whole or not there, verified file by file, and restored into a store that waits."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import duckdb
import msgspec
import pytest

from adaptd.daemon.domain.states import AdapterState, RunState
from adaptd.daemon.store.backups.layout import Place, fact_of, read_manifest, verify_backup
from adaptd.daemon.store.backups.restored import RestoreStore
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.database.encryption import StoreKey, is_encrypted
from adaptd.daemon.store.ingest.event_reads import EventReads
from adaptd.daemon.store.lifecycle.adapters import AdapterStore
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.wire.errors import RefusedError, SettingsError, StoreError
from tests.support.backup_world import NOW, Installation, restore
from tests.support.commands import run_command
from tests.support.event_samples import a_rating, an_interaction
from tests.support.ingesting import EVENTS, Ingesting, chunk

KEY = StoreKey("right key " * 4)


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path / "first")
    yield made
    made.database.close()


def elsewhere(tmp_path: Path) -> Place:
    return Place(tmp_path / "second" / "home", tmp_path / "second" / "policies")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_backup_holds_everything_and_is_verified(
    installed: Installation, tmp_path: Path
) -> None:
    row = await installed.adapter()
    await installed.ingesting.add(an_interaction(id="i1"), a_rating("i1"), b"broken")

    made = await installed.back_up(tmp_path / "backup")

    assert made.rows == {"interactions": 1, "feedback": 1, "dead_letters": 1}
    assert [(o["topic"], o["next_offset"]) for o in made.offsets] == [(EVENTS.topic, 3)]
    assert made.adapters == [row.name]
    assert verify_backup(tmp_path / "backup") == made
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700
    for secret in (tmp_path / "backup" / "secrets").iterdir():
        assert secret.stat().st_mode & 0o777 == 0o600
    assert "snapshots/snapshot-1/manifest.json" in made.files
    assert not any(name.endswith(".parquet") for name in made.files)


async def test_secrets_are_left_out_where_asked(installed: Installation, tmp_path: Path) -> None:
    made = await installed.back_up(tmp_path / "backup", secrets=False)
    assert not made.secrets
    assert not (tmp_path / "backup" / "secrets").exists()


async def test_writes_go_on_meanwhile_and_do_not_tear_the_copy(
    installed: Installation, tmp_path: Path
) -> None:
    await installed.ingesting.add(an_interaction(id="before"))

    def write_more(phase: str, done: int, total: int) -> None:
        if phase == "adapters":  # on the backup's thread, while the store's writer is free
            installed.database.write_now(lambda c: c.execute("DELETE FROM interactions"))

    made = await installed.back_up(tmp_path / "backup", told=write_more)

    assert made.rows["interactions"] == 1
    assert (await installed.ingesting.reads.counts()).interactions == 0


async def test_an_interrupted_backup_leaves_nothing_and_the_next_one_clears_a_killed_one(
    installed: Installation, tmp_path: Path
) -> None:
    def fail_late(phase: str, done: int, total: int) -> None:
        if phase == "done":
            raise OSError("no space left on device")

    with pytest.raises(StoreError, match="no space left"):
        await installed.back_up(tmp_path / "backup", told=fail_late)
    assert names_in(tmp_path) == ["first"]

    killed = tmp_path / ".backup.partial"
    killed.mkdir()
    (killed / "store.duckdb").write_text("half")
    await installed.back_up(tmp_path / "backup")
    verify_backup(tmp_path / "backup")
    assert not killed.exists()


async def test_a_destination_that_exists_or_hangs_in_the_air_is_refused(
    installed: Installation, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(RefusedError, match="there already"):
        await installed.back_up(tmp_path / "there")
    with pytest.raises(RefusedError, match="no folder"):
        await installed.back_up(tmp_path / "none" / "backup")


async def test_damaged_adapters_are_named_and_the_backup_is_made(
    installed: Installation, tmp_path: Path
) -> None:
    row, gone = await installed.adapter("a"), await installed.adapter("b")
    weights = Path(row.path) / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"rotten")
    shutil.rmtree(gone.path)

    made = await installed.back_up(tmp_path / "backup")

    assert set(made.missing) == {row.name, gone.name}
    assert made.adapters == []


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "link", "manifest", "escape"])
async def test_every_damage_is_found_before_anything_is_restored(
    installed: Installation, tmp_path: Path, damage: str
) -> None:
    await installed.adapter()
    made = await installed.back_up(tmp_path / "backup")
    store, manifest = tmp_path / "backup" / "store.duckdb", tmp_path / "backup" / "manifest.json"
    content = store.read_bytes()
    if damage == "flip":
        store.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    elif damage == "cut":
        store.write_bytes(content[:-1])
    elif damage == "remove":
        store.unlink()
    elif damage == "link":
        store.rename(tmp_path / "moved")
        store.symlink_to(tmp_path / "moved")
    elif damage == "manifest":
        manifest.unlink()
    else:
        files = {**made.files, "adapters/../../outside": made.files["store.duckdb"]}
        manifest.write_bytes(msgspec.json.encode(msgspec.structs.replace(made, files=files)))

    with pytest.raises(RefusedError):
        restore(tmp_path / "backup", elsewhere(tmp_path), key=None, replace=False)
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("broken", ["store", "target"])
async def test_what_the_disk_or_the_copy_refuses_is_told_without_a_stack_trace(
    installed: Installation, tmp_path: Path, broken: str
) -> None:
    made = await installed.back_up(tmp_path / "backup")
    place = elsewhere(tmp_path)
    if broken == "store":
        store = tmp_path / "backup" / "store.duckdb"
        with duckdb.connect(str(store)) as connection:
            connection.execute("DROP TABLE restores")
        fact = fact_of(store)
        assert fact is not None
        changed = msgspec.structs.replace(made, files={**made.files, "store.duckdb": fact})
        (tmp_path / "backup" / "manifest.json").write_bytes(msgspec.json.encode(changed))
    else:
        place.store.mkdir(parents=True)

    with pytest.raises(StoreError, match="cannot be written"):
        restore(tmp_path / "backup", place, key=None, replace=True)
    assert not list(place.home.glob(".*"))


async def test_nobody_opens_a_store_that_is_being_replaced(
    installed: Installation, tmp_path: Path
) -> None:
    await installed.ingesting.add(an_interaction(id="kept"))
    await installed.back_up(tmp_path / "backup")
    installed.database.close()
    database = "adaptd.daemon.store.database.database"
    code = f"import sys; from {database} import Database; Database.open(sys.argv[1])"
    command = [sys.executable, "-c", code, str(installed.place.store)]
    opened: list[subprocess.CompletedProcess[str]] = []

    def open_it(phase: str, done: int, total: int) -> None:
        if phase == "files" and not opened:
            opened.append(subprocess.run(command, check=False, capture_output=True, text=True))

    restored = restore(tmp_path / "backup", installed.place, key=None, replace=True, told=open_it)

    assert "another process has the store open" in opened[0].stderr
    assert len(restored.moved_aside) == 1
    installed.open()
    assert (await installed.ingesting.reads.counts()).interactions == 1


async def test_a_restored_store_has_its_rows_at_new_paths_and_waits(
    installed: Installation, tmp_path: Path
) -> None:
    row = await installed.adapter()
    await installed.ingesting.add(an_interaction(id="i1"))
    runs = RunStore(installed.database)
    run = await runs.create(
        "support", policy_version=1, trigger={}, start_from=None, actor="t", now=NOW
    )
    await runs.set_snapshot(run.run_id, "snapshot-1")
    await runs.claim(RunState.QUEUED, RunState.BUILDING, actor="t", now=NOW)
    made = await installed.back_up(tmp_path / "backup")
    place = elsewhere(tmp_path)

    done = restore(tmp_path / "backup", place, key=None, replace=False)

    assert (done.kept, done.moved_aside) == ([], [])
    database = Database.open(place.store)
    restored = await RestoreStore(database).newest()
    assert restored is not None
    assert restored.released_at is None
    assert restored.as_of == made.as_of
    assert await EventReads(database).has("i1")
    found = await AdapterStore(database).get(row.name)
    assert found.path == str(place.home / "adapters" / row.name)
    assert (Path(found.path) / "adapter_model.safetensors").stat().st_mode & 0o777 == 0o444
    assert (place.home / "secret.key").read_text() == "secret.key of first"
    assert (place.home / "secret.key").stat().st_mode & 0o777 == 0o600
    assert (place.policies / "support.yaml").read_text() == "version: 1\n"
    assert (await RunStore(database).get(run.run_id)).state is RunState.CANCELLED
    database.close()


async def test_a_target_with_a_store_needs_replace_and_keeps_its_own_files(
    installed: Installation, tmp_path: Path
) -> None:
    await installed.adapter()
    await installed.back_up(tmp_path / "backup")
    place = installed.place
    with pytest.raises(RefusedError, match="--replace"):
        restore(tmp_path / "backup", place, key=None, replace=False)
    installed.database.close()
    (place.home / "tokens.json").write_text("newer: one token was revoked")

    done = restore(tmp_path / "backup", place, key=None, replace=True)

    assert done.kept == [str(place.home / "tokens.json")]
    [aside] = done.moved_aside
    assert "newer" in (place.home / "tokens.json").read_text()
    again = restore(tmp_path / "backup", place, key=None, replace=True)
    [later] = again.moved_aside  # in the same second: neither replaces the other
    for path in (Path(aside), Path(later), place.store):
        Database.open(path).close()
    assert later != aside
    installed.open()


async def test_an_encrypted_store_stays_encrypted_and_needs_its_key(tmp_path: Path) -> None:
    installed = Installation(tmp_path / "first", key=KEY)
    await installed.ingesting.add(an_interaction(id="i1", user="planted-marker"))
    made = await installed.back_up(tmp_path / "backup")
    installed.database.close()
    place = elsewhere(tmp_path)

    assert made.encrypted
    assert is_encrypted(tmp_path / "backup" / "store.duckdb")
    for path in (tmp_path / "backup").rglob("*"):
        assert not path.is_file() or b"planted-marker" not in path.read_bytes()
    with pytest.raises(SettingsError, match="no key"):
        restore(tmp_path / "backup", place, key=None, replace=False)
    restore(tmp_path / "backup", place, key=KEY, replace=False)
    Database.open(place.store, key=KEY).close()
    assert read_manifest(tmp_path / "backup") == made


async def test_a_number_is_not_issued_again_after_a_restore(
    installed: Installation, tmp_path: Path
) -> None:
    row = await installed.adapter()
    await RestoreStore(installed.database).raise_floors({"support": 7})
    adapters = AdapterStore(installed.database)
    assert await adapters.next_number("support") == 8
    await RestoreStore(installed.database).raise_floors({"support": 3})
    assert await adapters.next_number("support") == 8
    assert row.state is AdapterState.CANDIDATE


async def test_what_is_read_again_is_compared_with_all_since_before_the_backup(
    installed: Installation, tmp_path: Path
) -> None:
    """The first copy is in the backup, the second came after it and is read again days later."""
    event = an_interaction(id="i1")
    await installed.ingesting.add(event, at=NOW)
    await installed.back_up(tmp_path / "backup")
    place = elsewhere(tmp_path)
    restore(tmp_path / "backup", place, key=None, replace=False)
    database = Database.open(place.store)
    restored = await RestoreStore(database).newest()
    assert restored is not None
    later = Ingesting(database, restored.as_of + timedelta(days=9))
    again = await later.sink.write(chunk([event, an_interaction(id="i2")], start=1))
    assert (again.interactions, len(again.duplicates)) == (1, 1)
    await RestoreStore(database).set_caught_up(now=NOW)
    much_later = await later.sink.write(chunk([event], start=3))
    assert much_later.interactions == 1, "caught up, the window counts again"
    database.close()


async def test_the_log_of_a_store_that_was_being_moved_aside_goes_with_it(
    installed: Installation, tmp_path: Path
) -> None:
    """Killed between the two renames of `restore --replace`: the new store must not find it."""
    await installed.back_up(tmp_path / "backup")
    place = installed.place
    log = place.store.with_name(f"{place.store.name}.wal")
    installed.database.close()
    aside = place.store.with_name(f"{place.store.name}.replaced-20261101T130000Z")
    place.store.rename(aside)
    log.write_bytes(b"what only the log knows")

    restore(tmp_path / "backup", place, key=None, replace=True)

    assert not log.exists()
    assert aside.with_name(f"{aside.name}.wal").read_bytes() == b"what only the log knows"
    installed.open()


async def test_a_log_whose_store_is_nowhere_is_not_taken_for_the_new_ones(
    installed: Installation, tmp_path: Path
) -> None:
    await installed.back_up(tmp_path / "backup")
    place = elsewhere(tmp_path)
    place.home.mkdir(parents=True)
    place.store.with_name(f"{place.store.name}.wal").write_bytes(b"whose?")

    with pytest.raises(RefusedError, match="store that is not here"):
        restore(tmp_path / "backup", place, key=None, replace=False)
    assert not place.store.exists()


async def test_a_drill_elsewhere_leaves_the_policies_in_force_alone(
    installed: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await installed.back_up(tmp_path / "backup")
    (installed.place.policies / "support.yaml").unlink()
    monkeypatch.setenv("ADAPTD_HOME", str(installed.place.home))
    monkeypatch.setenv("ADAPTD_POLICIES_DIR", str(installed.place.policies))
    drill = tmp_path / "drill"

    done = run_command("restore", str(tmp_path / "backup"), "--home", str(drill), "--json")

    assert done.code == 0
    assert done.data["home"] == str(drill)
    assert (drill / "policies" / "support.yaml").exists()
    assert names_in(installed.place.policies) == []
    assert drill.stat().st_mode & 0o777 == 0o700
