"""Seals the examples of every alias that has a policy, one ended day at a time.

It stands alone because it is a service of its own: no run waits for it.
"""

import asyncio
from datetime import UTC, datetime

import structlog

from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.store.examples.files import ExampleFiles

_LOOK_S = 60.0
_log = structlog.get_logger(__name__)


class SealingService:
    """Keeps the tail, which every selection exports again, no longer than about a day."""

    def __init__(self, files: ExampleFiles, book: PolicyBook, *, seals: bool) -> None:
        """`seals` False: no file is kept, and every selection exports all examples of its alias."""
        self._files = files
        self._book = book
        self._seals = seals

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._files.sweep()
            if self._seals:
                for version in self._book.all():
                    await self._seal_days(version.model)
            await asyncio.sleep(_LOOK_S)

    async def _seal_days(self, model: str) -> None:
        days = 0
        while await self._files.seal(model, now=datetime.now(UTC)):
            days += 1
        if days:
            _log.info("examples_sealed", model=model, days=days)
