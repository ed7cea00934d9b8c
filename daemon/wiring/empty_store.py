"""A policy's `where`, tried on a store without rows, for commands that need no daemon.

Stands alone so that a command imports neither the daemon's parts nor their libraries.
"""

import asyncio

from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.examples.sandbox import Sandbox
from adaptd.daemon.store.examples.where_check import EmptyExamplesCheck
from adaptd.daemon.store.ingest.event_reads import EventReads
from adaptd.daemon.wire.errors import AdaptdError


def where_problem(where: str) -> AdaptdError | None:
    """Try an expression on the columns that this release stores; None where it fits them."""
    database = Database.open(":memory:")
    try:
        asyncio.run(EmptyExamplesCheck(EventReads(database), Sandbox()).check(where))
    except AdaptdError as error:
        return error
    finally:
        database.close()
    return None
