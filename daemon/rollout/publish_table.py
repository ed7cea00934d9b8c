"""Hold the route table in force, publish it, and repeat it as the heartbeat."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import structlog

from adaptd.daemon.domain.ports import RoutePublisher
from adaptd.daemon.store.lifecycle.routes import RouteStore
from adaptd.daemon.wire.errors import EpochError, HostError
from adaptd.daemon.wire.routes import GatewayState, Route, RouteTable

BEATS_A_LEASE = 5
BLIND_LIMIT_S = 60.0

_log = structlog.get_logger(__name__)


class TablePublisher:
    """The only publisher of routes. Publishing needs neither the store nor any slow work.

    While a canary is on, the heartbeat continues only if the guard has looked within
    `blind_limit_s`: a guard that hangs must not keep a bad canary alive. Without the heartbeat the
    lease runs out and the canary's units return to live.
    """

    def __init__(
        self,
        routes: RouteStore,
        publisher: RoutePublisher,
        *,
        lease_s: float,
        blind_limit_s: float = BLIND_LIMIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._routes = routes
        self._publisher = publisher
        self._lease_s = lease_s
        self._blind_limit_s = blind_limit_s
        self._clock = clock
        self._looked = clock()
        self._found_epoch = 0
        self._unanswered = False
        self.stored: RouteTable | None = None  # the newest in the store at start
        self.table: RouteTable | None = None
        self.states: Sequence[GatewayState] = ()
        self.published_at: dict[int, datetime] = {}  # by epoch, when every gateway had it
        self.enabled_at: dict[str, datetime] = {}  # by rollout, since when its canary is on

    async def begin(self) -> None:
        """Raise the epoch above any in the store and, where they answer, on the gateways (D1)."""
        self.stored = await self._routes.current()
        self._found_epoch = self.stored.epoch if self.stored else 0
        try:
            self.states = await self._publisher.states()
        except HostError as error:
            _log.info("gateways_silent", error=str(error))
        self._found_epoch = max([self._found_epoch, *(state.epoch for state in self.states)])

    def following(
        self, routes: Mapping[str, Route], *, base: str, paths: Mapping[str, str]
    ) -> RouteTable | None:
        """Build the next table; None where the one in force says the same and its epoch is not
        behind.
        """
        epoch = self._found_epoch
        if (table := self.table) is not None:
            same = (table.routes, table.base, table.paths) == (routes, base, paths)
            if same and table.epoch > self._found_epoch:
                return None
            epoch = max(epoch, table.epoch)
        return RouteTable(
            epoch=epoch + 1,
            base=base,
            lease_s=self._lease_s,
            routes=dict(routes),
            paths=dict(paths),
        )

    async def write(self, table: RouteTable, *, reason: str) -> None:
        """Store a table that no other change brings along."""
        await self._routes.add(table, reason=reason, now=datetime.now(UTC))

    async def adopt(self, table: RouteTable) -> bool:
        """Put a stored table in force. Returns True where every gateway has it by now."""
        now = datetime.now(UTC)
        on = {r.rollout: now for r in table.routes.values() if r.canary_on and r.rollout}
        self.enabled_at = {key: self.enabled_at.get(key, since) for key, since in on.items()}
        self.table = table
        return await self.publish()

    def looked(self) -> None:
        """Note that the guard has looked at every canary."""
        self._looked = self._clock()

    async def publish(self) -> bool:
        """Send the table in force once."""
        table = self.table
        if table is None:
            return False
        try:
            self.states = await self._publisher.publish(table)
        except EpochError as error:
            self._note_epoch(table, error.epoch)
            return False
        except HostError as error:
            if not self._unanswered:  # once, not at every heartbeat
                _log.warning("routes_not_published", epoch=table.epoch, error=str(error))
            self._unanswered = True
            return False
        self._unanswered = False
        self.published_at.setdefault(table.epoch, datetime.now(UTC))
        return True

    async def heartbeat(self) -> None:
        """Publish the table in force until cancelled."""
        while True:
            if not self._is_blind():
                await self.publish()
            await asyncio.sleep(self._lease_s / BEATS_A_LEASE)

    def in_flight(self, name: str) -> int | None:
        """Requests still with a version; None where that is unknown."""
        epoch = self.table.epoch if self.table else 0
        if not self.states or any(state.epoch != epoch for state in self.states):
            return None
        return sum(state.in_flight.get(name, 0) for state in self.states)

    def _is_blind(self) -> bool:
        routes = self.table.routes.values() if self.table else ()
        if not any(route.canary_on for route in routes):
            return False
        age_s = self._clock() - self._looked
        if age_s > self._blind_limit_s:
            _log.error("lease_not_renewed", age_s=round(age_s, 1))
        return age_s > self._blind_limit_s

    def _note_epoch(self, sent: RouteTable, epoch: int) -> None:
        """Note a gateway's higher epoch: the next change goes above it.

        A table of our own that was sent meanwhile and overtook this one does not count.
        """
        ours = self.table.epoch if self.table else 0
        if epoch > ours or (epoch == ours and sent is self.table):
            _log.warning("gateway_ahead", epoch=epoch, ours=ours)
            self._found_epoch = max(self._found_epoch, epoch)
