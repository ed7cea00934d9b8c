"""A consistent copy of one installation, made while it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from adaptd import __version__
from adaptd.daemon.store.backups.layout import (
    ADAPTERS,
    POLICIES,
    SECRET_FILES,
    SECRETS,
    SNAPSHOTS,
    STORE,
    BackupManifest,
    Place,
    Told,
    cannot_write,
    copy_file,
    copy_tree,
    facts_of,
    made_whole,
    write_manifest,
)
from adaptd.daemon.store.database.database import rows, transaction
from adaptd.daemon.store.database.encryption import StoreKey, is_encrypted
from adaptd.daemon.store.database.opening import Connection, attach
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.ingest.sink import utc_now
from adaptd.daemon.store.lifecycle.adapter_seal import broken_seal
from adaptd.daemon.store.lifecycle.adapters import AdapterRow
from adaptd.daemon.wire.errors import StoreError

_SQL = statements("backup")
_COPY = "store_copy"


class Copied(msgspec.Struct, frozen=True, kw_only=True):
    """What the copy itself says of what is in it."""

    as_of: datetime
    facts: dict[str, int]
    offsets: list[dict[str, Any]]
    adapters: list[AdapterRow]


def back_up(
    cursor: Connection,
    place: Place,
    destination: Path,
    *,
    key: StoreKey | None,
    secrets: bool,
    told: Told = lambda *_: None,
    clock: Callable[[], datetime] = utc_now,
) -> BackupManifest:
    """Make a backup at `destination`, whole or not at all. Blocks; `cursor` is for it alone.

    An encrypted store's copy is encrypted with the same key, which is not in the backup. What
    `told` raises ends it.

    Raises:
        RefusedError: the destination exists, or its folder does not.
        StoreError: the disk is full, or the store cannot be read.
    """
    try:
        with made_whole(destination) as folder:
            told("store", 0, _size(place.store))
            copied = copy_store(cursor, folder / STORE, key=key, clock=clock)
            told("adapters", 0, 0)
            missing = _copy_adapters(copied.adapters, folder / ADAPTERS)
            told("policies", 0, 0)
            _copy_small(place, folder, secrets=secrets)
            manifest = _manifest(copied, place, folder, missing, told)
            write_manifest(folder, manifest)
            told("done", manifest.bytes, manifest.bytes)  # the last chance to give up
    except (duckdb.Error, OSError) as error:
        raise cannot_write(destination, error) from error
    return manifest


def copy_store(
    cursor: Connection,
    target: Path,
    *,
    key: StoreKey | None,
    clock: Callable[[], datetime] = utc_now,
) -> Copied:
    """Copy the store into a new file under `key`. Needs OpenSSL loaded where there is one.

    Raises:
        duckdb.Error, OSError: it cannot be read or written.
    """
    with _attached(cursor, target, key):
        as_of = clock()  # before the copy's snapshot: whatever came by now is in it
        with transaction(cursor):
            cursor.execute(_SQL["copy_store"])
        adapters = msgspec.convert(rows(cursor, _SQL["copied_adapters"]), list[AdapterRow])
        copied = Copied(
            as_of=as_of,
            facts=rows(cursor, _SQL["copied_facts"])[0],
            offsets=rows(cursor, _SQL["copied_offsets"]),
            adapters=adapters,
        )
    target.chmod(0o600)
    if target.with_name(f"{target.name}.wal").exists():
        raise StoreError(str(target), "the copy is not in one file", "Try again")
    return copied


@contextmanager
def _attached(cursor: Connection, target: Path, key: StoreKey | None) -> Iterator[None]:
    """Leaving it writes all to the file; DuckDB syncs it."""
    attach(cursor, target, _COPY, key=key)
    try:
        yield
    finally:
        cursor.execute(_SQL["detach_copy"])


def _copy_adapters(adapters: list[AdapterRow], folder: Path) -> dict[str, str]:
    """Every version's files, read again and compared with their seal; those that are not there."""
    missing = {}
    for row in adapters:
        copy_tree(Path(row.path), folder / row.name, link=True)
        copy = msgspec.structs.replace(row, path=str(folder / row.name))
        if (problem := broken_seal(copy)) is not None:
            missing[row.name] = problem
    return missing


def _copy_small(place: Place, folder: Path, *, secrets: bool) -> None:
    copy_tree(place.policies, folder / POLICIES)
    for path in sorted((place.home / SNAPSHOTS).glob("snapshot-*/manifest.json")):
        copy_file(path, folder / SNAPSHOTS / path.parent.name / path.name)
    for name in SECRET_FILES if secrets else ():
        if (place.home / name).is_file():
            copy_file(place.home / name, folder / SECRETS / name, mode=0o600)


def _manifest(
    copied: Copied, place: Place, folder: Path, missing: dict[str, str], told: Told
) -> BackupManifest:
    files = facts_of(folder, told)
    facts = dict(copied.facts)
    return BackupManifest(
        version=__version__,
        schema=facts.pop("schema"),
        epoch=facts.pop("epoch"),
        rows=facts,
        as_of=copied.as_of,
        home=str(place.home),
        encrypted=is_encrypted(folder / STORE),
        secrets=any(name.startswith(f"{SECRETS}/") for name in files),
        offsets=copied.offsets,
        adapters=[row.name for row in copied.adapters if row.name not in missing],
        missing=missing,
        files=files,
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
