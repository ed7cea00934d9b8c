"""Every repository over a test's store, made as the daemon makes them."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from adaptd.daemon.erasure.service import ErasureStores
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.stores import Stores, open_stores
from adaptd.daemon.wire.clock import utc_now


def stores_over(
    database: Database,
    folder: Path = Path("/nowhere"),
    *,
    secret: str = "5e",
    dedupe_window: timedelta = timedelta(days=1),
    clock: Callable[[], datetime] = utc_now,
) -> Stores:
    """`folder` is where files of examples would lie."""
    return open_stores(
        database,
        examples_folder=folder,
        erasure_secret=secret,
        dedupe_window=dedupe_window,
        clock=clock,
    )


def erasure_stores(stores: Stores) -> ErasureStores:
    """Those of them that an erasure works on."""
    return ErasureStores(
        database=stores.database,
        examples=stores.examples,
        erasures=stores.erasures,
        people=stores.person_rows,
        snapshots=stores.snapshots,
        runs=stores.runs,
    )
