"""Remove once a day what is older than the operator keeps it.

Stands alone as a service of its own: it shares the store with erasures, not their steps.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import structlog

from adaptd.daemon.erasure.leftovers import remove_run, remove_tree
from adaptd.daemon.store.privacy.erasures import ErasureStore
from adaptd.daemon.store.privacy.retention import Kind, RetentionStore
from adaptd.daemon.wire.clock import utc_now

_EVERY = timedelta(days=1)
_LOOK_S = 60.0
_BATCH_ROWS = 20_000
_log = structlog.get_logger(__name__)


class RetentionService:
    """Daily removal by kind.

    The store keeps the time of each run, so a restart repeats and skips none.
    """

    def __init__(
        self,
        store: RetentionStore,
        erasures: ErasureStore,
        keep: Mapping[Kind, float],
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """`keep`: seconds, by kind; one that is not named is kept for good.

        Tombstones have their own end.
        """
        self._store = store
        self._erasures = erasures
        self._keep: dict[Kind, float] = {**keep, "tombstones": 0}
        self._clock = clock

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self.tick()
            await asyncio.sleep(_LOOK_S)

    async def tick(self) -> None:
        """Look after what is due. Safe to repeat."""
        for kind, keep_s in self._keep.items():
            now = self._clock()
            last = await self._store.last_run(kind)
            if last is not None and now - last < _EVERY:
                continue
            removed = await self._remove_older(kind, now - timedelta(seconds=keep_s))
            await self._store.note_run(kind, removed, now=now)
            _log.info("retention_ran", kind=kind, removed=removed)

    async def _remove_older(self, kind: Kind, before: datetime) -> int:
        if kind == "tombstones":
            await self._erasures.drop_old_tombstones(self._clock())
            return 0
        if kind in ("events", "dead_letters"):
            return await self._store.drop_rows(kind, before=before, limit=_BATCH_ROWS)
        found = [p for p in await self._store.directories(kind, before=before) if p.exists()]
        for path in found:
            await asyncio.to_thread(remove_run if kind == "runs" else remove_tree, path)
        return len(found)
