"""Brings a store under another key, or from plain to encrypted and back: into a new file."""

from pathlib import Path

import duckdb

from adaptd.daemon.store.backups.backup import copy_store
from adaptd.daemon.store.database.compaction import REKEYED, beside, held, log_of, remove
from adaptd.daemon.store.database.database import utc_cursor
from adaptd.daemon.store.database.encryption import StoreKey, is_encrypted, is_store
from adaptd.daemon.store.database.opening import load_cryptography, open_store
from adaptd.daemon.wire.errors import RefusedError, StoreError
from adaptd.daemon.wire.files import sync_directory


def rekey_store(path: Path, *, old: StoreKey | None, new: StoreKey | None) -> None:
    """Rewrite a store that nobody has open. The old file stays as it was until the last step.

    Safe to repeat after an interruption. The bytes of the old file stay on the disk until it
    writes over them.

    Raises:
        RefusedError: there is no store, or the key is the one it has.
        SettingsError: the old key is missing or wrong.
        StoreError: another process has the store open, or the disk is full.
    """
    if not path.exists():
        raise RefusedError(str(path), "there is no store", "Set ADAPTD_HOME to where it lies")
    if not is_store(path):
        raise RefusedError(str(path), "it is no store", "Set ADAPTD_HOME to where the store lies")
    if old == new:
        state = "encrypted with this key" if old else "plain, and no key is set"
        raise RefusedError(str(path), f"it is {state} already", "Set the key you want it to have")
    fresh = beside(path, REKEYED)
    try:
        _rewrite(path, fresh, old=old, new=new)
        with held(path):
            _put_in_place(fresh, path)
        sync_directory(path.parent)
    except (duckdb.Error, OSError) as error:
        problem = f"it cannot be rewritten ({str(error).splitlines()[0]}); it is as it was"
        raise StoreError(str(path), problem, "It needs its own size in free space") from error


def _rewrite(path: Path, fresh: Path, *, old: StoreKey | None, new: StoreKey | None) -> None:
    """Opened for writing: what its log holds goes into the old file, and nobody else opens it.

    Only who has the store open removes a copy: it may be another's that is under way.
    """
    connection = open_store(path, key=old)
    try:
        remove(fresh)
        if new is not None and old is None:
            load_cryptography(connection)
        cursor = utc_cursor(connection)
        cursor.execute("CHECKPOINT store")
        copy_store(cursor, fresh, key=new)
        _check(fresh, encrypted=new is not None)
        cursor.close()
    except BaseException:
        remove(fresh)
        raise
    finally:
        connection.close()


def _put_in_place(fresh: Path, path: Path) -> None:
    """Exchange the files of a store that is held; the copy is gone either way."""
    try:
        if log_of(path).exists():
            raise StoreError(str(path), "its log is not empty", "Try again")
        fresh.replace(path)
    finally:
        remove(fresh)


def _check(fresh: Path, *, encrypted: bool) -> None:
    if is_encrypted(fresh) != encrypted:
        raise StoreError(str(fresh), "it did not come out as asked", "Report this")
