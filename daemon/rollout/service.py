"""Roll accepted versions out step by step under the guard, and back where users are worse off.

Each tick, for every rollout:

1. `RolloutCoordinator.look` reads versions and rollouts.
2. `GuardObserver.situation` gathers the facts; `guard.judge` rules on them.
3. `decide.next_action` chooses; HOLD only records the evidence.
4. `apply.carry_out` says what changes; the coordinator writes it and its routes in one
   transaction.
5. The coordinator publishes the table; the heartbeat repeats it.
6. Accepted versions without a rollout begin one.
"""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog

from adaptd.daemon.domain.ports import AdapterHost, ReceiptCheck, RoutePublisher
from adaptd.daemon.domain.rollouts import Frozen, Rollout
from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.rollout.agreement import names_in, numbers_of
from adaptd.daemon.rollout.apply import By, carry_out, pause
from adaptd.daemon.rollout.coordinator import RolloutCoordinator
from adaptd.daemon.rollout.decide import Act, NextAction, Situation, next_action
from adaptd.daemon.rollout.loading import AdapterLoader
from adaptd.daemon.rollout.observe import GuardObserver, outage
from adaptd.daemon.rollout.operator_commands import RolloutOperator
from adaptd.daemon.rollout.publish_table import TablePublisher
from adaptd.daemon.rollout.start import ACTOR, RolloutStarter
from adaptd.daemon.store.stores import Stores
from adaptd.daemon.wire.errors import HostError, RefusedError

HOST_LIMIT_S = 3.0  # at start; less than a lease
HOST_TICKS = 2  # the host is asked less often than the store: it has customers to answer
LOOK_SHARE = 0.2  # at most this share of the time goes into looking, however large the store is

_log = structlog.get_logger(__name__)


class RolloutService:
    """Owner of the route table.

    Heartbeat, host and decisions are tasks that never wait for each other.
    """

    def __init__(
        self,
        stores: Stores,
        policies: PolicyBook,
        host: AdapterHost,
        checks: ReceiptCheck,
        publisher: RoutePublisher,
        *,
        bases: Mapping[str, Path],
        lease_s: float = 5.0,
        tick_s: float = 1.0,
    ) -> None:
        self._tick_s = tick_s
        self._rollouts, self._guard = stores.rollouts, stores.guard
        self._adapters, self._publisher = stores.adapters, publisher
        adapters, receipts, evaluations = stores.adapters, stores.receipts, stores.evaluations
        self.tables = TablePublisher(stores.routes, publisher, lease_s=lease_s)
        self.loader = AdapterLoader(
            host,
            checks,
            receipts,
            adapters,
            wanted=self._wanted_versions,
            in_flight=self.tables.in_flight,
        )
        self._coordinator = RolloutCoordinator(
            self._rollouts, adapters, policies, self.tables, self.loader, bases=bases
        )
        self._watch = GuardObserver(self._guard, receipts, self._rollouts, self.tables, self.loader)
        self._starter = RolloutStarter(
            self._coordinator, self._rollouts, stores.runs, adapters, evaluations, policies
        )
        self._unpublished: dict[int, str] = {}  # epoch -> rollout that was taken back with it
        self.operator = RolloutOperator(
            self._coordinator, self._rollouts, adapters, evaluations, policies, self.took_back
        )

    async def run(self) -> None:
        """Work until cancelled. All state is in the store, so a restart continues it."""
        await self.begin()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.tables.heartbeat())
            tasks.create_task(self.loader.run(HOST_TICKS * self._tick_s))
            tasks.create_task(self._read_bases())
            tasks.create_task(self._decide_on())

    async def begin(self) -> None:
        """Put the routes that follow from the store in force, before all else (invariant 7)."""
        await self.tables.begin()
        await self._note_numbers()
        await self._look_at_host()
        if self.tables.stored is None:  # nothing is served yet that would wait for it
            await self._coordinator.read_bases()
        async with self._coordinator.lock:
            await self._withdraw_unwatched(datetime.now(UTC))
            await self._coordinator.reconcile("start")
        self.tables.looked()  # the guard gets its first look before the lease is in question

    async def _note_numbers(self) -> None:
        """Raise the floors above every number that a gateway's table names (D1)."""
        try:
            tables = await self._publisher.tables()
        except HostError:
            return  # `tables.begin` has logged it
        for table in tables:
            for model, number in numbers_of(names_in(table)).items():
                self._adapters.raise_floor(model, number)

    async def _look_at_host(self) -> None:
        """Look at the host, within a limit: a host that hangs must not delay the routes."""
        try:
            async with asyncio.timeout(HOST_LIMIT_S):
                await self.loader.look()
        except TimeoutError:
            _log.warning("host_slow_at_start", limit_s=HOST_LIMIT_S)

    async def _read_bases(self) -> None:
        while True:
            await self._coordinator.read_bases()
            await asyncio.sleep(self._tick_s)

    async def _decide_on(self) -> None:
        while True:
            self.loader.changed.clear()
            began = time.monotonic()
            await self.tick()
            spent_s = time.monotonic() - began
            await self._sleep_until_change(max(self._tick_s, spent_s / LOOK_SHARE - spent_s))

    async def _sleep_until_change(self, limit_s: float) -> None:
        """Wait until the host changes, or for the limit."""
        try:
            async with asyncio.timeout(limit_s):
                await self.loader.changed.wait()
        except TimeoutError:
            return

    async def tick(self) -> None:
        """Decide once for every rollout. Safe to repeat."""
        present = await self._coordinator.look()
        for rollout in present.rollouts.values():
            try:
                await self._consider_rollout(rollout)
            except RefusedError as error:  # an operator was faster: look again next time
                _log.info("rollout_changed_meanwhile", reason=str(error))
        self.tables.looked()
        async with self._coordinator.lock:
            await self._starter.start_accepted()
            await self._coordinator.reconcile("routes follow versions, host and clock")
        await self._record_published()

    async def _consider_rollout(self, rollout: Rollout) -> None:
        now = datetime.now(UTC)
        if (plan := self._coordinator.plan(rollout)) is None:
            _log.error("plan_missing", rollout=rollout.rollout_id, version=rollout.policy_version)
            return
        situation = await self._watch.situation(self._coordinator.present, rollout, plan, now=now)
        action = next_action(rollout, situation, plan, now=now)
        if action.act == Act.HOLD:
            await self._watch.record(
                rollout, situation.health, waits=action.reason, asks=action.asks, now=now
            )
        else:
            await self._carry_out(rollout, action, situation, now)

    async def _carry_out(
        self, rollout: Rollout, action: NextAction, situation: Situation, now: datetime
    ) -> None:
        frozen = await self._freeze_limits(rollout, action, now)
        async with self._coordinator.lock:
            present, now = await self._coordinator.look(), datetime.now(UTC)
            evidence = _collect_evidence(situation, action, now)
            by = By(actor=ACTOR, reason=action.reason, now=now, evidence=evidence)
            published = await self._coordinator.apply(
                carry_out(present, rollout, action, by, frozen)
            )
        if action.act == Act.ROLL_BACK:
            await self.took_back(rollout.rollout_id, published=published)

    async def _freeze_limits(self, rollout: Rollout, action: NextAction, now: datetime) -> Frozen:
        """Take live's latency limits before the first unit reaches the canary (D12)."""
        if action.act != Act.STEP or action.step > 1:
            return Frozen()
        live = self._coordinator.present.live(rollout.model)
        limits = await self._guard.latency_limits(rollout.model, live, now=now)
        return Frozen(latency_limits=limits)

    async def took_back(self, rollout_id: str | None, *, published: bool) -> None:
        """Note a rollback, to record when the gateways had its routes."""
        if rollout_id is not None and self.tables.table is not None:
            self._unpublished[self.tables.table.epoch] = rollout_id
        if published:
            await self._record_published()

    async def _record_published(self) -> None:
        """Record when rollbacks were published.

        A later table has their routes too, so it counts.
        """
        for epoch, rollout_id in list(self._unpublished.items()):
            times = [at for published, at in self.tables.published_at.items() if published >= epoch]
            if times:
                evidence = {"published_at": min(times).isoformat()}
                await self._rollouts.record_evidence(rollout_id, evidence)
                del self._unpublished[epoch]

    def _wanted_versions(self) -> list[str]:
        return self._coordinator.present.wanted()

    async def _withdraw_unwatched(self, now: datetime) -> None:
        """Send canaries that were unwatched for too long back to live until a person has looked."""
        present = await self._coordinator.look()
        for rollout in list(present.rollouts.values()):
            if (reason := outage(rollout, now=now)) is not None:
                by = By(actor=ACTOR, reason=reason, now=now)
                await self._coordinator.apply(pause(rollout, by, withdraw=True))


def _collect_evidence(situation: Situation, action: NextAction, now: datetime) -> dict[str, Any]:
    """The evidence that a decision was made on."""
    evidence: dict[str, Any] = {"decided_at": now.isoformat(), "waits": None, "asks": False}
    if situation.receipt is not None:
        evidence["receipt"] = msgspec.to_builtins(situation.receipt)
    if situation.health is not None:
        evidence |= {"guard": msgspec.to_builtins(situation.health), "looked_at": now.isoformat()}
    if action.act == Act.ROLL_BACK:
        evidence["rolled_back_because"] = action.reason
    return evidence
