"""How a store's file is opened: attached as `store` to an instance of its own, plain or encrypted.

An encrypted file needs OpenSSL, which DuckDB keeps in its httpfs extension. It is loaded from the
package `duckdb-extension-httpfs`: nothing is downloaded, and nothing installed into a home folder.
"""

from importlib import resources
from pathlib import Path
from typing import Any

import duckdb

from adaptd.daemon.store.database.encryption import KEY_VARIABLE, StoreKey, is_encrypted
from adaptd.daemon.wire.errors import SettingsError, StoreError

Connection = duckdb.DuckDBPyConnection
MEMORY = ":memory:"
_PACKAGE = "duckdb_extension_httpfs"
# Encrypted files have it anyway. Its checkpoints take two thirds of the time of the oldest one's,
# which DuckDB would write. An older file becomes one when it is opened.
_STORAGE_VERSION = "v1.4.0"
# Four of DuckDB's vectors, for old tables too. What fills a row group within one transaction goes
# into the file at once, not through log and checkpoint: two thirds of the time. See ADR 10.
ROW_GROUP_ROWS = 8_192
_WRITING = [f"STORAGE_VERSION '{_STORAGE_VERSION}'", f"ROW_GROUP_SIZE {ROW_GROUP_ROWS}"]


def open_store(
    path: Path | str,
    *,
    key: StoreKey | None = None,
    memory_limit: str = "1GB",
    threads: int = 2,
    read_only: bool = False,
) -> Connection:
    """Open or create the store's file. Every cursor needs `use_store`.

    Raises:
        SettingsError: a key is missing, wrong, or given for a plain file; nothing was touched.
        StoreError: the file is held by another process, or cannot be opened.
    """
    check_key(path, key)
    connection = _instance(_config(path, memory_limit, threads))
    try:
        if key is not None:
            load_cryptography(connection)
        attach(connection, path, "store", key=key, read_only=read_only)
        connection.execute("USE store")
    except duckdb.Error as error:
        connection.close()
        raise _cannot_open(path, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def attach(
    connection: Connection,
    path: Path | str,
    name: str,
    *,
    key: StoreKey | None,
    read_only: bool = False,
) -> None:
    """Attach a file under a name of ours. The key is a parameter: no error can quote it.

    Raises:
        duckdb.Error: as DuckDB says.
    """
    options = ["ENCRYPTION_KEY $key"] if key else []
    options += ["READ_ONLY"] if read_only else _WRITING
    file = str(path).replace("'", "''")
    statement = f"ATTACH '{file}' AS {name} ({', '.join(options)})"
    connection.execute(statement, {"key": key.secret} if key else None)


def load_cryptography(connection: Connection) -> None:
    """Load OpenSSL; what else the extension brings (reading from the network) is shut off.

    Raises:
        StoreError: its package is not installed for this DuckDB.
    """
    wanted = Path("extensions") / f"v{duckdb.__version__}" / "httpfs.duckdb_extension"
    try:
        file = Path(str(resources.files(_PACKAGE))) / wanted
        connection.execute(f"LOAD '{str(file).replace(chr(39), chr(39) * 2)}'")
    except (ModuleNotFoundError, duckdb.Error) as error:
        problem = f"an encrypted one needs the package duckdb-extension-httpfs ({error})"
        remedy = f"Run: pip install duckdb-extension-httpfs=={duckdb.__version__}"
        raise StoreError("store", problem, remedy) from error
    connection.execute("SET temp_file_encryption = true")
    connection.execute("SET disabled_filesystems = 'HTTPFileSystem,S3FileSystem'")


def check_key(path: Path | str, key: StoreKey | None) -> None:
    """Refuse a key for a plain file, and an encrypted file without one, before it is opened.

    Raises:
        SettingsError: with the command that changes the file.
        StoreError: it is no plain file, or cannot be read.
    """
    if path == MEMORY or not Path(path).exists():
        return
    encrypted = is_encrypted(Path(path))
    if Path(path).stat().st_size == 0:
        return
    if encrypted and key is None:
        remedy = f"Set ADAPTD_STORE_KEY_PATH, ADAPTD_STORE_KEY_COMMAND or {KEY_VARIABLE}"
        raise SettingsError(str(path), "the store is encrypted and no key is set", remedy)
    if not encrypted and key is not None:
        remedy = "Encrypt it with the daemon stopped: adaptd store rekey"
        raise SettingsError(str(path), "a key is set and the store is not encrypted", remedy)


def _config(path: Path | str, memory_limit: str, threads: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "memory_limit": memory_limit,
        "threads": str(threads),
        "checkpoint_threshold": "64MB",  # events ask for one earlier where they are small
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
    }
    if path != MEMORY:
        config["temp_directory"] = f"{path}.tmp"
    return config


def _instance(config: dict[str, Any]) -> Connection:
    try:
        return duckdb.connect(MEMORY, config=config)
    except duckdb.Error as error:
        problem = f"{config['memory_limit']!r} is no size ({str(error).splitlines()[0]})"
        raise SettingsError("store_memory", problem, "Give one like 1GB or 800MB") from error


def _cannot_open(path: Path | str, error: duckdb.Error) -> SettingsError | StoreError:
    text = str(error).splitlines()[0]
    if "Wrong encryption key" in text:
        remedy = "Set the key it was encrypted with; the file was not touched"
        return SettingsError(str(path), "the store is encrypted with another key", remedy)
    if "lock" in text.lower():
        return StoreError(
            str(path), "another process has the store open", "Stop it first; its id is in: " + text
        )
    return StoreError(
        str(path), f"the store cannot be opened ({text})", "Check the path, its rights and the disk"
    )
