"""Puts a backup in the place of an installation, marked so that nothing moves before it agrees."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import duckdb
import msgspec

from adaptd.daemon.domain.states import RunState
from adaptd.daemon.store.backups.layout import (
    ADAPTERS,
    POLICIES,
    SECRETS,
    SNAPSHOTS,
    STORE,
    BackupManifest,
    Place,
    Told,
    cannot_write,
    copy_file,
    fact_of,
    verify_backup,
)
from adaptd.daemon.store.backups.restored import Restore, add_restore
from adaptd.daemon.store.database.compaction import RESTORED, beside, held, log_of, remove
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.encryption import StoreKey, is_encrypted
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.ingest.sink import utc_now
from adaptd.daemon.store.lifecycle.runs import move_run
from adaptd.daemon.wire.errors import RefusedError, SettingsError
from adaptd.daemon.wire.files import sync_directory

_SQL = statements("restores")
_ACTOR = "restore"
_ASIDE = ".replaced-"
_PATHS = ("move_adapter_paths", "move_snapshot_paths", "move_run_paths")


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What was done. `kept` are files of the target that differ from the backup's and stay."""

    source: str
    home: str
    as_of: datetime
    rows: dict[str, int]
    adapters: list[str]
    missing: dict[str, str]
    moved_aside: list[str]
    kept: list[str]
    secrets: bool


def restore_backup(
    source: Path,
    place: Place,
    *,
    key: StoreKey | None,
    replace: bool,
    told: Told = lambda *_: None,
    clock: Callable[[], datetime] = utc_now,
) -> Restored:
    """Verify a backup and put it in place; the store itself comes last. Safe to repeat.

    Files that are there already stay: adapters never change, and policies, tokens and secrets of
    the target may be newer. With `replace` the target's store is moved aside, never deleted.

    Raises:
        RefusedError: the backup is not whole, or the target has a store and `replace` is not set.
        SettingsError: the store's key is missing, wrong or not wanted.
        StoreError: a daemon has the target's store open, or the disk refuses.
    """
    try:
        with _held_target(place, replace=replace) as there_is_one:
            manifest = verify_backup(source, told)
            _check_key(source, manifest, key)
            place.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            kept = _lay_files(source, place, manifest, told)
            moved = _lay_store(source, place, manifest, key=key, replace=there_is_one, now=clock())
    except (OSError, duckdb.Error) as error:
        raise cannot_write(place.home, error) from error
    return Restored(
        source=str(source),
        home=str(place.home),
        as_of=manifest.as_of,
        rows=manifest.rows,
        adapters=manifest.adapters,
        missing=manifest.missing,
        moved_aside=moved,
        kept=kept,
        secrets=manifest.secrets,
    )


@contextmanager
def _held_target(place: Place, *, replace: bool) -> Iterator[bool]:
    """Keep the target's store shut: who opens it removes half-made copies, so also ours.

    Yields whether there is one. Where there is none nobody can be kept out; a store that is made
    meanwhile is found at the end.
    """
    if not place.store.exists():
        _keep_log(place.store)
        yield False
        return
    if not replace:
        remedy = "Give another --home, or move it aside: adaptd restore --replace"
        raise RefusedError(str(place.store), "there is a store already", remedy)
    with held(place.store):
        yield True


def _keep_log(store: Path) -> None:
    """A kill while a store was moved aside leaves its log behind, with what only that knows."""
    log = log_of(store)
    if not log.exists():
        return
    aside = [path for path in store.parent.glob(f"{store.name}{_ASIDE}*") if path.suffix != ".wal"]
    alone = sorted(path for path in aside if not log_of(path).exists())
    if not alone:
        remedy = "Move it to where that store is now, beside it and with .wal after its name"
        raise RefusedError(str(log), "it is the log of a store that is not here", remedy)
    log.rename(log_of(alone[-1]))


def _check_key(source: Path, manifest: BackupManifest, key: StoreKey | None) -> None:
    if manifest.encrypted and key is None:
        remedy = "Set ADAPTD_STORE_KEY_PATH, ADAPTD_STORE_KEY_COMMAND or ADAPTD_STORE_KEY"
        raise SettingsError(str(source), "its store is encrypted and no key is set", remedy)
    if key is not None and not is_encrypted(source / STORE):
        remedy = "Restore it without a key, then set the key and run: adaptd store rekey"
        raise SettingsError(str(source), "a key is set and its store is not encrypted", remedy)


def _lay_files(source: Path, place: Place, manifest: BackupManifest, told: Told) -> list[str]:
    """Everything but the store; a file in the target wins. Says which of those differ."""
    kept, done = [], 0
    for name, fact in manifest.files.items():
        told("files", done, manifest.bytes)
        done += fact.bytes
        part, _, inner = name.partition("/")
        if part == STORE:
            continue
        target = place.part(part) / inner
        if not target.exists():
            copy_file(source / name, target, mode=0o600 if part == SECRETS else None)
        elif fact_of(target) != fact:
            kept.append(str(target))
    _seal_folders(place, manifest)
    return kept


def _seal_folders(place: Place, manifest: BackupManifest) -> None:
    for name in manifest.adapters:
        (place.part(ADAPTERS) / name).chmod(0o555)
    for part in (ADAPTERS, POLICIES, SNAPSHOTS):
        if place.part(part).is_dir():
            sync_directory(place.part(part))


def _lay_store(
    source: Path,
    place: Place,
    manifest: BackupManifest,
    *,
    key: StoreKey | None,
    replace: bool,
    now: datetime,
) -> list[str]:
    """Make the store beside its place and put it there; says what was moved aside."""
    fresh = beside(place.store, RESTORED)
    try:
        _prepare(source, fresh, place, manifest, key=key, now=now)
        return _put_in_place(fresh, place.store, replace=replace, now=now)
    finally:
        remove(fresh)


def _prepare(
    source: Path,
    fresh: Path,
    place: Place,
    manifest: BackupManifest,
    *,
    key: StoreKey | None,
    now: datetime,
) -> None:
    """The store as it will be: its paths those of the new home, and marked as restored."""
    remove(fresh)
    copy_file(source / STORE, fresh, mode=0o600)
    database = Database.open(fresh, key=key)
    try:
        database.write_now(lambda cursor: _mark(cursor, source, place, manifest, now=now))
    finally:
        database.close()
    with fresh.open("rb+") as file:
        os.fsync(file.fileno())


def _mark(
    cursor: Connection, source: Path, place: Place, manifest: BackupManifest, *, now: datetime
) -> None:
    for statement in _PATHS:
        cursor.execute(_SQL[statement], {"before": manifest.home, "after": str(place.home)})
    reason = "its files are in no backup"
    for row in rows(cursor, _SQL["unfinished_runs"]):
        move_run(cursor, row["run_id"], RunState.CANCELLED, actor=_ACTOR, reason=reason, now=now)
    restore = Restore(
        restored_at=now, as_of=manifest.as_of, source=str(source), offsets=manifest.offsets
    )
    add_restore(cursor, restore)


def _put_in_place(fresh: Path, store: Path, *, replace: bool, now: datetime) -> list[str]:
    """Move the old store, which is held, and its log aside, then put the new one there."""
    moved = _move_aside(store, now) if replace else []
    try:
        os.link(fresh, store)  # fails where somebody made a store meanwhile, or opened one
    except (FileExistsError, FileNotFoundError) as error:
        problem = f"a store was made meanwhile; moved aside was {', '.join(moved) or 'none'}"
        raise RefusedError(str(store), problem, "Stop the daemon and restore again") from error
    sync_directory(store.parent)
    return moved


def _move_aside(store: Path, now: datetime) -> list[str]:
    name = f"{store.name}{_ASIDE}{now:%Y%m%dT%H%M%SZ}"
    aside = store.with_name(name)
    for again in itertools.count(2):  # twice in one second; a rename would put one over the other
        if not aside.exists():
            break
        aside = store.with_name(f"{name}-{again}")
    store.rename(aside)
    if log_of(store).exists():
        log_of(store).rename(log_of(aside))
    return [str(aside)]
