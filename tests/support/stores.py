"""Every repository over a test's store, made as the daemon makes them."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.stores import Stores, open_stores
from adaptd.daemon.wire.clock import utc_now


def stores_over(
    database: Database,
    folder: Path = Path("/nowhere"),
    *,
    secret: str = "5e",
    clock: Callable[[], datetime] = utc_now,
) -> Stores:
    """`folder` is where files of examples would lie. Events are compared with one day's."""
    return open_stores(
        database,
        examples_folder=folder,
        erasure_secret=secret,
        dedupe_window=timedelta(days=1),
        clock=clock,
    )
