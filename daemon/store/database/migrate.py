"""Schema versions: numbered SQL files, applied once each, forward only."""

from importlib import resources

import duckdb

from adaptd.daemon.wire.errors import StoreError


def migrate(connection: duckdb.DuckDBPyConnection) -> None:
    """Apply every migration the store does not have yet, each in its own transaction.

    Raises:
        StoreError: the store was written by a newer release.
    """
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, applied_at TIMESTAMPTZ)"
    )
    found = connection.execute("SELECT number FROM migrations").fetchall()
    applied = {number for (number,) in found}
    available = dict(_available())
    if unknown := applied - available.keys():
        raise StoreError(
            "store",
            f"its schema is version {max(unknown)}, this release knows {max(available)}",
            "Use the newer adaptd",
        )
    for number in sorted(available.keys() - applied):
        connection.begin()
        connection.execute(available[number])
        connection.execute("INSERT INTO migrations VALUES (?, now())", [number])
        connection.commit()


def _available() -> list[tuple[int, str]]:
    folder = resources.files("adaptd.daemon.store") / "migrations"
    return [
        (int(file.name.split("_")[0]), file.read_text("utf-8"))
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    ]
