"""Tries a policy's `where` on the store's columns, in the sandbox and without data.

Stands alone: the seam between the policy service's WhereCheck and the store.
"""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from adaptd.daemon.store.examples.sandbox import Sandbox
from adaptd.daemon.store.ingest.event_reads import EventReads

_NOBODY = "\0"  # no alias has this name: the file has every column and no row


class EmptyExamplesCheck:
    """Implements the policy service's WhereCheck."""

    def __init__(self, events: EventReads, sandbox: Sandbox) -> None:
        self._events = events
        self._sandbox = sandbox

    async def check(self, where: str) -> None:
        """Raise SandboxError where the expression is refused or does not fit the columns."""
        now = datetime.now(UTC)
        with tempfile.TemporaryDirectory(prefix="adaptd-where-") as folder:
            path = Path(folder) / "examples.parquet"
            await self._events.export_examples(path, as_of=now, model=_NOBODY)
            await self._sandbox.check(path, where, as_of=now)
