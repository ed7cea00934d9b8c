"""Runs start when a trigger holds, once for each cause, also across restarts."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from adaptd.daemon.domain.states import AdapterState, RunState
from adaptd.daemon.domain.triggers import UsableExamples
from adaptd.daemon.policy.book import PolicyBook, PolicyVersion
from adaptd.daemon.scheduling.service import TriggerService
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.lifecycle.adapters import AdapterStore, Origin
from adaptd.daemon.store.lifecycle.policies import PolicyStore
from adaptd.daemon.store.lifecycle.runs import Run, RunStore
from adaptd.daemon.store.lifecycle.triggers import TriggerStore
from adaptd.daemon.wire.errors import AdaptdError
from tests.support.clock import Clock
from tests.support.event_samples import a_correction, a_rating, an_interaction
from tests.support.ingesting import Ingesting
from tests.support.policy_files import MINIMAL
from tests.support.waiting import until

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NIGHTLY = "train_when: {any: [{cron: '0 3 * * *'}], cooldown: 1h}\n"


class World:
    """A store, a clock, a book and a service; `usable` is what a snapshot would hold."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = Clock(NOON)
        self.book = PolicyBook()
        self.runs = RunStore(database)
        self.adapters = AdapterStore(database)
        self.usable = UsableExamples(new_examples=3, train=10, holdout_items=100, holdout_groups=50)
        self.previews = 0
        self.problem: AdaptdError | None = None
        self.service = self.started()
        self.events = Ingesting(database, NOON)

    def started(self) -> TriggerService:
        """The service as a new process has it."""
        return TriggerService(
            self.book,
            runs=self.runs,
            adapters=self.adapters,
            store=TriggerStore(self.database),
            preview=self.preview,
            seal=self.seal,
            tick_s=0.3,
            clock=self.clock,
        )

    async def seal(self) -> datetime:
        return self.clock.now

    async def preview(self, version: PolicyVersion, *, as_of: datetime) -> UsableExamples:
        self.previews += 1
        assert as_of == self.clock.now
        if self.problem is not None:
            raise self.problem
        return self.usable

    async def policy(self, more: str, model: str = "support") -> PolicyVersion:
        text = MINIMAL.replace("support", model) + more
        stored = await PolicyStore(self.database).apply(
            model, yaml=text, sha256=str(hash(text)), path=f"p/{model}.yaml", now=self.clock.now
        )
        version = self.book.remember(stored)
        assert version is not None
        others = {v.model: v for v in self.book.all() if v.model != model}
        self.book.settle(others | {model: version}, [])
        return version

    async def tick(self, at: datetime | None = None) -> str:
        """One look at the given time; what was decided on `support`."""
        self.clock.now = at or self.clock.now
        await self.service.tick()
        return self.service.decisions()["support"].reason

    async def finish(self) -> None:
        """End the active run now."""
        run = await self.runs.active("support")
        assert run is not None
        await self.runs.move(
            run.run_id, RunState.CANCELLED, actor="test", reason="over", now=self.clock.now
        )

    async def all_runs(self) -> list[Run]:
        return sorted(await self.runs.list(), key=lambda run: run.created_at)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    database = Database.open(":memory:")
    yield World(database)
    database.close()


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


# New examples ------------------------------------------------------------------------------------


async def corrected(world: World, count: int, **fields: Any) -> None:
    for _ in range(count):
        asked = an_interaction()
        await world.events.add(asked, a_correction(asked["id"], **fields), at=world.clock.now)


async def test_a_run_is_queued_with_its_cause_once_enough_examples_are_there(world: World) -> None:
    await world.policy("train_when: {any: [{new_examples: 3}]}\nselect: {caps: {min_age: 1m}}\n")
    await corrected(world, 2)
    assert await world.tick(NOON + timedelta(minutes=2)) == "2 of 3 new examples"
    await corrected(world, 1)

    assert await world.tick(NOON + timedelta(minutes=4)) == "3 new examples (wanted 3)"
    (run,) = await world.all_runs()
    assert (run.state, run.policy_version, run.start_from) == (RunState.QUEUED, 1, None)
    assert run.trigger["kind"] == "new_examples"
    assert await world.tick() == f"run {run.run_id} is not finished"


async def test_feedback_in_quarantine_or_not_in_use_is_not_worth_a_count(world: World) -> None:
    await world.policy(
        "train_when: {any: [{new_examples: 1}]}\nselect: {use: [correction], caps: {min_age: 1h}}\n"
    )
    asked = an_interaction()
    await world.events.add(asked, a_rating(asked["id"], 1), at=NOON - timedelta(hours=3))
    await corrected(world, 2)
    await world.events.add(an_interaction(model="other"), at=NOON)

    assert await world.tick(NOON + timedelta(minutes=59)) == "0 of 1 new examples"
    assert world.previews == 0


async def test_what_is_usable_decides_and_is_counted_at_a_bounded_rate(world: World) -> None:
    await world.policy("train_when: {any: [{new_examples: 2}]}\nselect: {caps: {min_age: 0s}}\n")
    await corrected(world, 5)
    world.usable = UsableExamples(new_examples=1, train=1, holdout_items=100, holdout_groups=50)
    assert await world.tick(NOON + timedelta(seconds=1)) == "1 of 2 new examples"
    assert await world.tick() == "counting usable examples"
    assert world.previews == 1

    async def counted_again() -> bool:
        await world.tick()
        return world.previews == 2

    await until(counted_again, within_s=5)


async def test_too_few_held_back_start_nothing(world: World) -> None:
    await world.policy("train_when: {any: [{new_examples: 2}]}\nselect: {caps: {min_age: 0s}}\n")
    await corrected(world, 5)
    world.usable = UsableExamples(new_examples=5, train=5, holdout_items=60, holdout_groups=50)
    assert await world.tick(NOON + timedelta(seconds=1)) == "60 of 100 examples held back"
    assert await world.all_runs() == []


async def test_a_policy_that_cannot_be_tried_waits_and_says_why(world: World) -> None:
    await world.policy("train_when: {any: [{new_examples: 1}]}\nselect: {caps: {min_age: 0s}}\n")
    await corrected(world, 1)
    world.problem = AdaptdError("p/support.yaml:5", "select.where took too long", "Simplify it")
    assert "select.where took too long" in await world.tick(NOON + timedelta(seconds=1))
    assert await world.all_runs() == []


async def test_a_run_continues_from_the_live_version_unless_the_policy_says_base(
    world: World,
) -> None:
    origin = Origin(content_hash="1f00ba42" * 8, base_digest="b" * 64)
    row = await world.adapters.add("support", origin, folder=Path("a"), actor="test", now=NOON)
    await world.adapters.move(row.name, AdapterState.LIVE, actor="test", reason="test")
    when = "train_when: {any: [{new_examples: 1}], cooldown: 0s}\nselect: {caps: {min_age: 0s}}\n"
    await corrected(world, 5)
    for start_from in ("live", "base"):
        await world.policy(when + f"train: {{start_from: {start_from}}}\n")
        world.service = world.started()
        await world.tick(world.clock.now + timedelta(seconds=1))
        await world.finish()

    assert [run.start_from for run in await world.all_runs()] == [row.name, None]


async def test_no_run_is_queued_while_a_rollout_is_on_its_steps(world: World) -> None:
    row = await world.adapters.add(
        "support",
        Origin(content_hash="ab" * 32, base_digest="b"),
        folder=Path("adapters"),
        actor="test",
        now=NOON,
    )
    await world.adapters.move(row.name, AdapterState.CANARY, actor="test", reason="test")
    await world.policy(
        "train_when: {any: [{new_examples: 1}], cooldown: 0s}\nselect: {caps: {min_age: 0s}}\n"
    )
    await corrected(world, 5)
    later = NOON + timedelta(seconds=1)
    assert await world.tick(later) == f"{row.name} is being rolled out"
    assert world.previews == 0
    await world.adapters.move(row.name, AdapterState.LIVE, actor="test", reason="test")
    await world.tick(later + timedelta(seconds=1))
    assert len(await world.all_runs()) == 1


# Negative share ----------------------------------------------------------------------------------


async def test_a_bad_day_starts_a_run_by_the_last_word_of_each_person(world: World) -> None:
    share = "{negative_share: {above: 50%, over: 2h, at_least: 4}}"
    await world.policy(f"train_when: {{any: [{share}]}}\n")
    asked = [an_interaction() for _ in range(4)]
    ids = [one["id"] for one in asked]
    await world.events.add(*asked, at=NOON)
    await world.events.add(*[a_rating(one, -1) for one in ids[:3]], at=NOON)
    assert await world.tick() == "3 of 4 judged answers"
    later = (NOON + timedelta(minutes=1)).isoformat()
    await world.events.add(
        a_rating(ids[0], 1, time=later), a_rating(ids[3], 1), at=NOON + timedelta(minutes=2)
    )
    assert await world.tick() == "negative share 50.0%, not above 50.0%"
    await world.events.add(a_correction(ids[3]), at=NOON + timedelta(minutes=3))

    assert await world.tick(NOON + timedelta(hours=1)) == "negative share 75.0% of 4 judged answers"
    assert len(await world.all_runs()) == 1


async def test_only_the_window_counts(world: World) -> None:
    share = "{negative_share: {above: 0%, over: 2h, at_least: 1}}"
    await world.policy(f"train_when: {{any: [{share}]}}\n")
    asked = an_interaction()
    await world.events.add(asked, a_rating(asked["id"], -1), at=NOON)
    assert await world.tick(NOON + timedelta(hours=3)) == "0 of 1 judged answers"


# Cron --------------------------------------------------------------------------------------------


async def test_a_cron_fires_once_and_not_for_times_before_it_was_known(world: World) -> None:
    await world.policy(NIGHTLY)
    assert await world.tick() == "cron 0 3 * * * is not due"
    assert await world.tick(at(23, 2, 59)) == "cron 0 3 * * * is not due"
    assert "was due at" in await world.tick(at(23, 3))
    await world.finish()
    assert await world.tick(at(23, 8)) == "cron 0 3 * * * is not due"
    assert len(await world.all_runs()) == 1


async def test_a_fire_missed_while_the_daemon_was_down_is_made_up_for_once(world: World) -> None:
    await world.policy(NIGHTLY)
    await world.tick()
    world.service = world.started()

    await world.tick(at(25, 9))  # three nights later
    await world.finish()
    world.service = world.started()
    assert await world.tick(at(25, 20)) == "cron 0 3 * * * is not due"
    assert len(await world.all_runs()) == 1


async def test_a_fire_waits_for_cooldown_and_for_a_run_that_is_not_finished(world: World) -> None:
    await world.policy(NIGHTLY)
    await world.tick()
    await world.runs.create(
        "support", policy_version=1, trigger={}, start_from=None, actor="test", now=at(23, 2)
    )
    assert "is not finished" in await world.tick(at(23, 3))
    await world.finish()
    assert await world.tick(at(23, 3, 30)) == "cooldown, 0:30:00 left"
    assert "was due at 2026-11-23T03:00:00+00:00" in await world.tick(at(23, 4))


async def test_a_crash_after_the_run_was_queued_fires_nothing_twice(world: World) -> None:
    await world.policy(NIGHTLY)
    await world.tick()
    store = TriggerStore(world.database)
    (state,) = await store.crons("support")
    await store.fire_cron("support", state.job, now=at(23, 3))
    trigger = {"kind": "cron", "fired_at": at(23, 3).isoformat()}
    await world.runs.create(  # as the service does, killed before it settles the cron
        "support", policy_version=1, trigger=trigger, start_from=None, actor="t", now=at(23, 3)
    )
    await world.finish()
    world.service = world.started()

    assert await world.tick(at(23, 9)) == "cron 0 3 * * * is not due"
    assert len(await world.all_runs()) == 1


async def test_a_cron_that_was_edited_or_removed_starts_afresh(world: World) -> None:
    await world.policy(NIGHTLY)
    await world.tick()
    await world.policy(NIGHTLY.replace("0 3", "0 4"))
    assert await world.tick(at(23, 9)) == "cron 0 4 * * * is not due"
    await world.policy(NIGHTLY)
    assert await world.tick(at(23, 10)) == "cron 0 3 * * * is not due"
    await world.policy("", model="sales")
    sales = world.book.current("sales")
    assert sales is not None
    world.book.settle({"sales": sales}, [])
    await world.service.tick()
    assert await TriggerStore(world.database).crons("support") == []


async def test_the_scheduler_wakes_the_loop_when_a_cron_is_due(world: World) -> None:
    await world.policy("train_when: {any: [{cron: '0 3 * * sun'}]}\ntimezone: Europe/Madrid\n")
    scheduler = AsyncIOScheduler(timezone=UTC)
    scheduler.start()
    try:
        world.service._schedule_wakes(scheduler)
        (job,) = scheduler.get_jobs()
        assert job.next_run_time.strftime("%a %H:%M %Z") in ("Sun 03:00 CET", "Sun 03:00 CEST")

        job.modify(next_run_time=datetime.fromtimestamp(0, UTC))  # nights were slept through
        await until(world.service._wake.is_set, within_s=5)

        world.book.settle({}, [])
        world.service._schedule_wakes(scheduler)
        assert scheduler.get_jobs() == []
    finally:
        scheduler.shutdown(wait=False)


async def test_the_service_ticks_until_it_is_cancelled(world: World) -> None:
    await world.policy(NIGHTLY)
    task = asyncio.create_task(world.service.run())
    await until(world.service.decisions, within_s=5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
