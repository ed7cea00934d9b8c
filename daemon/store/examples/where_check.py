"""Tries a policy's `where` on the columns there are, in the sandbox and on no data."""

import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.examples.sandbox import Sandbox
from adaptd.daemon.store.ingest.event_reads import EventReads
from adaptd.daemon.wire.errors import AdaptdError

_NOBODY = "\0"  # no alias is called so: the file has every column and no row


class EmptyExamplesCheck:
    """Implements the policy service's WhereCheck."""

    def __init__(self, events: EventReads, sandbox: Sandbox) -> None:
        self._events = events
        self._sandbox = sandbox

    async def check(self, where: str) -> None:
        """Raises SandboxError where the expression is refused or does not fit the columns."""
        now = datetime.now(UTC)
        with tempfile.TemporaryDirectory(prefix="adaptd-where-") as folder:
            path = Path(folder) / "examples.parquet"
            await self._events.export_examples(path, as_of=now, model=_NOBODY)
            await self._sandbox.check(path, where, as_of=now)


def where_problem(where: str) -> AdaptdError | None:
    """What is wrong with an expression, on the columns this release stores. No daemon needed."""
    database = Database.open(":memory:")
    try:
        asyncio.run(EmptyExamplesCheck(EventReads(database), Sandbox()).check(where))
    except AdaptdError as error:
        return error
    finally:
        database.close()
    return None
