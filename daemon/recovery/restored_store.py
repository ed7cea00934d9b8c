"""Hold a restored store until it agrees with gateways, server and Kafka."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import msgspec
import structlog

from adaptd.consumers.kafka.service import IngestStatus
from adaptd.daemon.domain.ports import AdapterHost, RoutePublisher
from adaptd.daemon.rollout.agreement import Disagreement, disagreements, names_in, numbers_of
from adaptd.daemon.store.backups.restored import Restore, RestoreStore
from adaptd.daemon.store.lifecycle.routes import RouteStore
from adaptd.daemon.wire.errors import HostError, RefusedError

ACTOR = "daemon"
LOOK_LIMIT_S = 10.0
_REMEDY = "It is looked at again by itself; `adaptd store release` does not wait for it"
_log = structlog.get_logger(__name__)

Asked = Callable[[], Awaitable[IngestStatus]]


class Restoration:
    """The hold on a restored store; released at once where the store was not restored.

    The hold ends by itself once every gateway and the server have answered, publishing would move
    no traffic, and Kafka was read again up to its end at the first comparison. Where routes were
    changed after the backup only a person may decide; the backup's rollouts then wait, with their
    traffic on live.
    """

    def __init__(
        self,
        restore: Restore | None,
        store: RestoreStore,
        routes: RouteStore,
        publisher: RoutePublisher,
        host: AdapterHost,
        *,
        ingest: Asked | None,
        adapters: Path,
        every_s: float,
    ) -> None:
        """`ingest` None: no broker. `adapters`: the folder whose version numbers are taken."""
        self.restore = restore
        self._store = store
        self._routes = routes
        self._publisher = publisher
        self._host = host
        self._ingest = ingest
        self._adapters = adapters
        self._every_s = every_s
        self._ends: dict[tuple[str, int], int] = {}
        self._released = asyncio.Event()
        self.findings: list[Disagreement] = []
        if restore is None or restore.released_at is not None:
            self._released.set()

    @classmethod
    async def load(cls, store: RestoreStore, *parts: Any, **more: Any) -> Self:
        return cls(await store.newest(), store, *parts, **more)

    @property
    def holds(self) -> bool:
        return not self._released.is_set()

    @property
    def problem(self) -> str | None:
        """The reason that nothing moves; None where everything may."""
        if not self.holds or self.restore is None:
            return None
        why = "; ".join(f.what for f in self.findings) or "not compared yet"
        return f"restored as of {self.restore.as_of:%Y-%m-%d %H:%M:%S} UTC, nothing moves: {why}"

    def check(self) -> None:
        """Raises RefusedError while the restored store may not act."""
        if self.problem is not None:
            remedy = "Wait, or let it act: adaptd store release --reason …"
            raise RefusedError("store", self.problem, remedy)

    def hold(self, work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """Wrap a service so that it begins once the store may act."""

        async def held() -> None:
            await self._released.wait()
            await work()

        return held

    async def run(self) -> None:
        """Compare until released and caught up, then rest. Runs until cancelled."""
        while self.restore is not None and not self._is_done(self.restore):
            await self.tick()
            await asyncio.sleep(self._every_s)
        await asyncio.Event().wait()

    async def tick(self) -> None:
        """Compare once; release where nothing disagrees. Safe to repeat."""
        behind = await self._find_backlog()
        if behind is None and self.restore and self.restore.caught_up_at is None:
            await self._store.set_caught_up(now=datetime.now(UTC))
            self.restore = await self._store.newest()
        if not self.holds:
            return
        found = [
            *await self._ask_gateways(),
            *await self._ask_server(),
            *([behind] if behind else []),
        ]
        if found != self.findings:
            _log.warning("restored_store_waits", findings=[finding.what for finding in found])
        self.findings = found
        if not found:
            await self._release_store(
                actor=ACTOR, reason="it agrees with all that runs", trusted=True
            )

    async def release(self, *, actor: str, reason: str) -> Restore | None:
        """Let the store act although it does not agree. Its rollouts wait for `rollout resume`.

        Raises:
            RefusedError: it was not restored, or acts already.
        """
        if not self.holds:
            raise RefusedError("store", "it is not waiting after a restore", "Nothing to release")
        await self._ask_gateways()  # their numbers and the server's, as far as they answer
        await self._ask_server()
        return await self._release_store(actor=actor, reason=reason, trusted=False)

    def document(self) -> dict[str, Any] | None:
        """The hold as status shows it; None where this store was never restored."""
        if self.restore is None:
            return None
        shown: dict[str, Any] = msgspec.to_builtins(self.restore)
        del shown["offsets"]
        findings = msgspec.to_builtins(self.findings) if self.holds else shown["findings"]
        return shown | {"holds": self.holds, "findings": findings}

    async def _release_store(self, *, actor: str, reason: str, trusted: bool) -> Restore | None:
        self.restore = await self._store.release(
            actor=actor,
            reason=reason,
            findings=msgspec.to_builtins(self.findings),
            withdraw=not trusted,
            now=datetime.now(UTC),
        )
        _log.warning("restored_store_released", actor=actor, reason=reason)
        self._released.set()
        return self.restore

    async def _ask_gateways(self) -> list[Disagreement]:
        try:
            async with asyncio.timeout(LOOK_LIMIT_S):
                await self._publisher.states()  # for the surfaces
                followed = await self._publisher.tables()
        except (HostError, TimeoutError) as error:
            return [_describe_silence("a gateway", error)]
        names = [name for table in followed for name in names_in(table)]
        await self._store.raise_floors(numbers_of(names))
        return disagreements(await self._routes.current(), followed)

    async def _ask_server(self) -> list[Disagreement]:
        """Numbers of the server and of the folder are never issued again (D1)."""
        await self._store.raise_floors(numbers_of(await asyncio.to_thread(self._list_folders)))
        try:
            async with asyncio.timeout(LOOK_LIMIT_S):
                loaded = await self._host.loaded()
        except (HostError, TimeoutError) as error:
            return [_describe_silence("the server", error)]
        await self._store.raise_floors(numbers_of(loaded))
        return []

    def _list_folders(self) -> list[str]:
        return [path.name for path in self._adapters.iterdir()] if self._adapters.is_dir() else []

    async def _find_backlog(self) -> Disagreement | None:
        """Name what is still to be read of the log, up to its end at the first comparison."""
        if self._ingest is None:
            return None
        status = await self._ingest()
        at = {(p.topic, p.partition): p.next_offset for p in status.partitions}
        lags = {(p.topic, p.partition): p.lag for p in status.partitions}
        if status.state != "running" or None in lags.values():
            what = f"ingestion is {status.state}: {status.problem or 'not compared yet'}"
            return Disagreement(what=what, remedy="See `adaptd ingest status`", waits=True)
        self._ends = self._ends or {key: at[key] + (lags[key] or 0) for key in at}
        left = sum(max(0, end - at.get(key, end)) for key, end in self._ends.items())
        if left == 0:
            return None
        return Disagreement(what=f"{left} messages are read again", remedy=_REMEDY, waits=True)

    def _is_done(self, restore: Restore) -> bool:
        return not self.holds and restore.caught_up_at is not None


def _describe_silence(who: str, error: HostError | TimeoutError) -> Disagreement:
    problem = error.problem if isinstance(error, HostError) else "it does not answer"
    return Disagreement(what=f"{who} was not heard yet ({problem})", remedy=_REMEDY, waits=True)
