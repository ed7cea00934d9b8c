"""Starts runs: looks at every alias's triggers, decides, and queues a run with its cause.

APScheduler wakes the loop when a cron is due; what fired and still waits is in the store, so that a
restart loses no fire and repeats none.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from adaptd.daemon.domain.states import AdapterState
from adaptd.daemon.policy.book import PolicyBook, PolicyVersion
from adaptd.daemon.policy.cron import cron_trigger, next_fire
from adaptd.daemon.scheduling.decide import (
    Decision,
    Facts,
    Judged,
    TriggerAction,
    Usable,
    decide,
    wants_count,
)
from adaptd.daemon.store.lifecycle.adapters import AdapterRow, AdapterStore
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.store.lifecycle.triggers import TriggerStore
from adaptd.daemon.wire.errors import AdaptdError, RefusedError

_log = structlog.get_logger(__name__)
_ACTOR = "trigger"
_REST = 10  # a tick that took a second is followed by ten of rest
_START = datetime(1970, 1, 1, tzinfo=UTC)


class SnapshotForecast(Protocol):
    """What a snapshot taken at a time would hold; writes nothing."""

    def __call__(self, version: PolicyVersion, *, as_of: datetime) -> Awaitable[Usable]: ...


def utc_now() -> datetime:
    return datetime.now(UTC)


class TriggerService:
    """One look at every alias each tick. All state is in the store."""

    def __init__(
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
        self._decisions: dict[str, Decision] = {}
        self._count_after: dict[str, float] = {}  # monotonic: counting starts a child process
        self._scheduled: set[tuple[str, str]] = set()
        self._wake = asyncio.Event()

    def decisions(self) -> dict[str, Decision]:
        """The last decision on every alias, for the surfaces."""
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
                self._schedule(scheduler)
                rest_s = max(self._tick_s, _REST * (time.monotonic() - began))
                with suppress(TimeoutError):
                    async with asyncio.timeout(rest_s):
                        await self._wake.wait()
        finally:
            scheduler.shutdown(wait=False)

    async def tick(self) -> None:
        """Decide once on every alias that has a policy in force."""
        await self._forget_removed()
        for version in self._book.all():
            try:
                decision = await self._look(version)
            except AdaptdError as error:  # a policy's SQL, a lost file: told, and tried again
                decision = Decision(TriggerAction.WAIT, str(error))
                if self._decisions.get(version.model) != decision:
                    _log.warning("trigger_not_decided", model=version.model, reason=str(error))
            self._decisions[version.model] = decision

    async def _look(self, version: PolicyVersion) -> Decision:
        now = self._clock()
        facts = await self._facts(version, now)
        if wants_count(version.policy, facts, now=now) and self._may_count(version.model):
            facts = await self._counted(version, facts, now)
        decision = decide(version.policy, facts, now=now)
        return await self._start(version, decision) if decision.starts else decision

    async def _start(self, version: PolicyVersion, decision: Decision) -> Decision:
        """Queue the run. The fire it answers is in its trigger, so a crash here repeats nothing."""
        try:
            run = await self._runs.create(
                version.model,
                policy_version=version.version,
                trigger=dict(decision.trigger) | {"reason": decision.reason},
                start_from=await self._start_from(version),
                actor=_ACTOR,
                now=await self._seal(),
            )
        except RefusedError as error:  # somebody else was first
            return Decision(TriggerAction.WAIT, error.problem)
        await self._store.settle_crons(version.model)
        _log.info("run_queued", model=version.model, run=run.run_id, reason=decision.reason)
        return decision

    async def _start_from(self, version: PolicyVersion) -> str | None:
        """The live version, unless it learnt from an erased person: that would be handed on."""
        live = await self._in_state(version.model, AdapterState.LIVE)
        if version.policy.train.start_from == "base" or live is None or live.tainted_by:
            return None
        return live.name

    async def _in_state(self, model: str, state: AdapterState) -> AdapterRow | None:
        found = await self._adapters.list(model)
        return next((row for row in found if row.state == state), None)

    async def _facts(self, version: PolicyVersion, now: datetime) -> Facts:
        model = version.model
        active, last = await self._runs.active(model), await self._runs.last_finished(model)
        crons_due = await self._crons_due(version, now)
        live = await self._in_state(model, AdapterState.LIVE)
        canary = await self._in_state(model, AdapterState.CANARY)
        return Facts(
            active_run=active.run_id if active else None,
            last_finished_at=last.finished_at if last else None,
            at_most_new=await self._at_most_new(version, now),
            judged=await self._judged(version, now),
            crons_due=crons_due,
            tainted_live=live.name if live and live.tainted_by else None,
            canary=canary.name if canary else None,
        )

    async def _at_most_new(self, version: PolicyVersion, now: datetime) -> int:
        """Feedback since the newest snapshot; all of it where the policy has changed since."""
        mark = await self._store.newest_snapshot(version.model)
        min_age = version.policy.select.caps.min_age
        same = mark is not None and mark.policy_version == version.version
        since = mark.as_of - min_age if mark is not None and same else _START
        kinds = version.policy.select.use
        until = now - min_age
        return await self._store.count_new(version.model, since=since, until=until, kinds=kinds)

    async def _judged(self, version: PolicyVersion, now: datetime) -> dict[timedelta, Judged]:
        windows = {
            trigger.negative_share.over
            for trigger in version.policy.train_when.any
            if trigger.negative_share is not None
        }
        found: dict[timedelta, Judged] = {}
        for over in windows:
            counted = await self._store.count_judged(version.model, since=now - over)
            found[over] = Judged(counted.total, counted.negative)
        return found

    async def _crons_due(self, version: PolicyVersion, now: datetime) -> dict[str, datetime]:
        """Fires that wait for a run, by expression; those that are due now are written first."""
        model, zone = version.model, version.policy.timezone
        jobs = _jobs(version)
        known = {state.job: state for state in await self._store.crons(model)}
        if set(known) - set(jobs):
            await self._store.forget_crons(model, kept=list(jobs))
        for job, expression in jobs.items():
            if job not in known:
                await self._store.begin_cron(model, job, now=now)
            elif (due := next_fire(cron_trigger(expression, zone), known[job].fired_at)) is None:
                continue
            elif due <= now:
                await self._store.fire_cron(model, job, now=now)
        states = await self._store.crons(model) if jobs else []
        return {jobs[state.job]: state.fired_at for state in states if state.waiting}

    async def _forget_removed(self) -> None:
        """A policy that is gone takes its crons along; an empty folder may not be mounted yet."""
        in_force = {version.model for version in self._book.all()}
        if not in_force:
            return
        for model in set(await self._store.cron_models()) - in_force:
            await self._store.forget_crons(model, kept=[])

    def _may_count(self, model: str) -> bool:
        return time.monotonic() >= self._count_after.get(model, 0.0)

    async def _counted(self, version: PolicyVersion, facts: Facts, now: datetime) -> Facts:
        began = time.monotonic()
        try:
            usable = await self._preview(version, as_of=now)
        finally:
            ended = time.monotonic()
            self._count_after[version.model] = ended + max(
                self._tick_s, _REST / 2 * (ended - began)
            )
        return replace(facts, usable=usable)

    async def _awake(self) -> None:
        """A coroutine, so that APScheduler runs it on the loop and not in a thread."""
        self._wake.set()

    def _schedule(self, scheduler: AsyncIOScheduler) -> None:
        """Keep one APScheduler job for every cron in force; it only wakes the loop."""
        wanted = {
            (job, expression): cron_trigger(expression, version.policy.timezone)
            for version in self._book.all()
            for job, expression in _jobs(version).items()
        }
        for gone in self._scheduled - set(wanted):
            scheduler.remove_job("\n".join(gone))
        for fresh in set(wanted) - self._scheduled:
            scheduler.add_job(
                self._awake,
                wanted[fresh],
                id="\n".join(fresh),
                misfire_grace_time=None,
                coalesce=True,
            )
        self._scheduled = set(wanted)


def _jobs(version: PolicyVersion) -> dict[str, str]:
    """The alias's crons: what one is called in the store, and its expression."""
    crons = (trigger.cron for trigger in version.policy.train_when.any)
    return {f"{cron} {version.policy.timezone}": cron for cron in crons if cron is not None}
