"""Starts runs: asks every alias's triggers, decides, and queues a run with its cause.

APScheduler wakes the loop when a trigger wants it, such as a cron that is due. Fires that still
wait for a run are in the store, so that a restart loses no fire and repeats none.
"""

# APScheduler has no types.
# pyright: reportMissingTypeStubs=false
# pyright: reportUnknownMemberType=false

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from adaptd.daemon.domain.states import AdapterState
from adaptd.daemon.domain.triggers import UsableExamples
from adaptd.daemon.domain.versions import find_version, live_version
from adaptd.daemon.policy.book import PolicyBook, PolicyVersion
from adaptd.daemon.policy.trigger import Trigger, TriggerFacts, TriggerScope
from adaptd.daemon.policy.triggers import TRIGGERS
from adaptd.daemon.scheduling.decide import (
    Decision,
    TriggerAction,
    Triggers,
    decide,
    wants_count,
)
from adaptd.daemon.store.lifecycle.adapters import AdapterStore
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.store.lifecycle.triggers import TriggerStore
from adaptd.daemon.wire.clock import utc_now
from adaptd.daemon.wire.errors import AdaptdError, RefusedError

_log = structlog.get_logger(__name__)
_ACTOR = "trigger"
_REST = 10  # a tick that took a second is followed by ten of rest


class SnapshotForecast(Protocol):
    """Counts the examples of a snapshot taken at a time; writes nothing."""

    def __call__(self, version: PolicyVersion, *, as_of: datetime) -> Awaitable[UsableExamples]: ...


class TriggerService:
    """Looks at every alias once a tick. All state is in the store."""

    def __init__(  # noqa: PLR0913 - one argument a part
        self,
        book: PolicyBook,
        *,
        runs: RunStore,
        adapters: AdapterStore,
        store: TriggerStore,
        preview: SnapshotForecast,
        seal: Callable[[], Awaitable[datetime]],
        tick_s: float,
        clock: Callable[[], datetime] = utc_now,
        triggers: Triggers = TRIGGERS,
    ) -> None:
        """`seal` gives a time that nothing stored later can lie before: the snapshot's `as_of`."""
        self._book = book
        self._runs = runs
        self._adapters = adapters
        self._store = store
        self._preview = preview
        self._seal = seal
        self._tick_s = tick_s
        self._clock = clock
        self._triggers = triggers
        self._decisions: dict[str, Decision] = {}
        self._count_after: dict[str, float] = {}  # monotonic: counting starts a child process
        self._scheduled: set[str] = set()
        self._wake = asyncio.Event()

    def decisions(self) -> dict[str, Decision]:
        """Return the last decision on every alias, for the status and the metrics."""
        return dict(self._decisions)

    async def run(self) -> None:
        """Look until cancelled."""
        scheduler = AsyncIOScheduler(timezone=UTC)
        scheduler.start()
        try:
            while True:
                began = time.monotonic()
                self._wake.clear()
                await self.tick()
                self._schedule_wakes(scheduler)
                rest_s = max(self._tick_s, _REST * (time.monotonic() - began))
                with suppress(TimeoutError):
                    async with asyncio.timeout(rest_s):
                        await self._wake.wait()
        finally:
            scheduler.shutdown(wait=False)

    async def tick(self) -> None:
        """Decide once on every alias that has a policy in force.

        For each alias: read the facts of its triggers, count usable examples where that could
        change the decision, decide, and queue the run.
        """
        await self._drop_removed_crons()
        for version in self._book.all():
            try:
                decision = await self._decide_alias(version)
            except AdaptdError as error:  # a policy's SQL or a lost file: logged, and tried again
                decision = Decision(TriggerAction.WAIT, str(error))
                if self._decisions.get(version.model) != decision:
                    _log.warning("trigger_not_decided", model=version.model, reason=str(error))
            self._decisions[version.model] = decision

    async def _decide_alias(self, version: PolicyVersion) -> Decision:
        now = self._clock()
        facts = await self._read_facts(version, now)
        policy, triggers = version.policy, self._triggers
        if wants_count(policy, facts, now=now, triggers=triggers) and self._may_count(version):
            facts = replace(facts, usable=await self._count_usable(version, now))
        decision = decide(policy, facts, now=now, triggers=triggers)
        return await self._start_run(version, decision) if decision.starts else decision

    async def _start_run(self, version: PolicyVersion, decision: Decision) -> Decision:
        try:
            # The cause holds the fire that the run answers, so a crash after this repeats nothing.
            run = await self._runs.create(
                version.model,
                policy_version=version.version,
                trigger=dict(decision.trigger) | {"reason": decision.reason},
                start_from=await self._choose_start(version),
                actor=_ACTOR,
                now=await self._seal(),
            )
        except RefusedError as error:  # a run that somebody else began is not finished
            return Decision(TriggerAction.WAIT, error.problem)
        for trigger in self._triggers:
            await trigger.settle(version.model, self._store)
        _log.info("run_queued", model=version.model, run=run.run_id, reason=decision.reason)
        return decision

    async def _choose_start(self, version: PolicyVersion) -> str | None:
        """Return the version to train on from; None is the base."""
        live = live_version(await self._adapters.list(version.model), version.model)
        # What a tainted version learnt from an erased person would be handed on.
        if version.policy.train.start_from == "base" or live is None or live.tainted_by:
            return None
        return live.name

    async def _read_facts(self, version: PolicyVersion, now: datetime) -> TriggerFacts:
        model = version.model
        active, last = await self._runs.active(model), await self._runs.last_finished(model)
        adapters = await self._adapters.list(model)
        live = live_version(adapters, model)
        canary = find_version(adapters, model, AdapterState.CANARY)
        scope = TriggerScope(model, version.policy, version.version, now)
        return TriggerFacts(
            active_run=active.run_id if active else None,
            last_finished_at=last.finished_at if last else None,
            read={
                trigger.key: await trigger.read(_find_wanted(version, trigger), scope, self._store)
                for trigger in self._triggers
            },
            tainted_live=live.name if live and live.tainted_by else None,
            canary=canary.name if canary else None,
        )

    async def _drop_removed_crons(self) -> None:
        in_force = {version.model for version in self._book.all()}
        if not in_force:  # an empty folder may not be mounted yet
            return
        for model in set(await self._store.cron_models()) - in_force:
            await self._store.drop_crons(model, kept=[])

    def _may_count(self, version: PolicyVersion) -> bool:
        return time.monotonic() >= self._count_after.get(version.model, 0.0)

    async def _count_usable(self, version: PolicyVersion, now: datetime) -> UsableExamples:
        began = time.monotonic()
        try:
            return await self._preview(version, as_of=now)
        finally:
            ended = time.monotonic()
            rest_s = max(self._tick_s, _REST / 2 * (ended - began))
            self._count_after[version.model] = ended + rest_s

    async def _wake_up(self) -> None:  # a coroutine: APScheduler runs others in a thread
        self._wake.set()

    def _schedule_wakes(self, scheduler: AsyncIOScheduler) -> None:
        """Keep one APScheduler job for every time wanted by a trigger; it only wakes the loop."""
        wanted = {
            f"{trigger.key} {name}": fires
            for version in self._book.all()
            for trigger in self._triggers
            for name, fires in trigger.wake_times(
                _find_wanted(version, trigger), version.policy.timezone
            ).items()
        }
        for gone in self._scheduled - set(wanted):
            scheduler.remove_job(gone)
        for fresh in set(wanted) - self._scheduled:
            scheduler.add_job(
                self._wake_up, wanted[fresh], id=fresh, misfire_grace_time=None, coalesce=True
            )
        self._scheduled = set(wanted)


def _find_wanted(version: PolicyVersion, trigger: Trigger[Any]) -> list[Any]:
    """Return the values that a policy gives a trigger's key."""
    return [e.wanted for e in version.policy.train_when.any if e.key == trigger.key]
