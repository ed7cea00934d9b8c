"""A canary keeps its traffic only while its guard can see, and looks."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adaptd.daemon.domain.rollouts import Waiver
from adaptd.daemon.rollout.observe import OUTAGE
from tests.support.rollout_world import (
    MODEL,
    OPERATOR,
    CrashingDatabase,
    RolloutWorld,
    advance,
    begun,
    on_first_step,
)
from tests.support.tiny_model import make_tiny_base
from tests.support.waiting import until


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
async def world(tmp_path: Path, tiny_dir: Path) -> AsyncIterator[RolloutWorld]:
    database = CrashingDatabase.open(":memory:")
    yield RolloutWorld(database, tmp_path, tiny_dir)
    database.close()


async def test_a_canary_nobody_watched_for_long_returns_to_live_until_resumed(
    world: RolloutWorld,
) -> None:
    _, row, rollout = await on_first_step(world)
    long_ago = (datetime.now(UTC) - OUTAGE - timedelta(minutes=1)).isoformat()
    await world.rollouts.record_evidence(rollout.rollout_id, {"looked_at": long_ago})
    heard = len(world.publisher.heard)
    service = await begun(world)
    await advance(service, 2)
    assert all(not t.routes[MODEL].canary_on for t in world.publisher.heard[heard:])
    rollout = await world.rollout(row)
    assert rollout.paused is not None
    assert rollout.paused.startswith("evidence too old")

    await service.operator.act_on_rollout(rollout.rollout_id, "resume", **OPERATOR)
    assert world.route.canary_on


async def test_halted_ingestion_takes_the_canarys_traffic_away(world: RolloutWorld) -> None:
    service, row, _ = await on_first_step(world)
    halted = "INSERT INTO halts VALUES (now(), 'topic deleted', NULL, NULL)"
    world.database.write_now(lambda c: c.execute(halted))
    await advance(service)
    rollout = await world.rollout(row)
    assert (rollout.withdrawn, world.route.canary_on) == (True, False)
    assert rollout.paused == "ingestion is halted (topic deleted): the guard sees nothing"


async def test_a_canary_that_answers_while_nothing_is_stored_loses_its_traffic(
    world: RolloutWorld,
) -> None:
    service, row, rollout = await on_first_step(world)
    plan = service._coordinator.plan(rollout)
    assert plan is not None

    async def blind(later: timedelta) -> str | None:
        now = datetime.now(UTC) + later
        seen = await service._watch.situation(service._coordinator.present, rollout, plan, now=now)
        return seen.blind

    minute = timedelta(minutes=1)
    assert await blind(20 * minute) is None  # nobody asks: nothing to be seen
    world.publisher.in_flight = {row.name: 1}
    await service.tables.publish()
    assert await blind(20 * minute) is None
    assert await blind(29 * minute) is None
    found = await blind(31 * minute)
    assert found is not None
    assert found.startswith("no event stored since")
    world.ask(rollout, ingested_at=datetime.now(UTC) + 30 * minute)
    assert await blind(31 * minute) is None


async def test_a_quiet_hour_is_not_taken_for_stuck_ingestion(world: RolloutWorld) -> None:
    service, row, rollout = await on_first_step(world)
    plan = service._coordinator.plan(rollout)
    assert plan is not None
    minute = timedelta(minutes=1)

    async def blind(later: timedelta, *, in_flight: int) -> str | None:
        now = datetime.now(UTC) + later
        world.publisher.in_flight = {row.name: in_flight}
        await service.tables.publish()
        seen = await service._watch.situation(service._coordinator.present, rollout, plan, now=now)
        return seen.blind

    assert await blind(1 * minute, in_flight=1) is None
    world.ask(rollout, ingested_at=datetime.now(UTC) + 2 * minute)
    assert await blind(60 * minute, in_flight=1) is None
    assert await blind(65 * minute, in_flight=0) is None
    found = await blind(71 * minute, in_flight=1)  # nor is a pause taken for an answer that came
    assert found is not None


async def test_a_request_that_ended_with_its_host_is_not_waited_for(world: RolloutWorld) -> None:
    service, _, rollout = await on_first_step(world)
    world.publisher.in_flight = {rollout.candidate: 1}
    await service.tables.publish()
    await service.tick()
    service.tables.enabled_at[rollout.rollout_id] = datetime.now(UTC) + timedelta(minutes=30)
    plan = service._coordinator.plan(rollout)
    assert plan is not None
    later = datetime.now(UTC) + timedelta(minutes=31)
    seen = await service._watch.situation(service._coordinator.present, rollout, plan, now=later)
    assert seen.blind is None


async def test_uneven_shares_pause_until_resumed(world: RolloutWorld) -> None:
    service, row, rollout = await on_first_step(world)
    old = datetime.now(UTC) - timedelta(minutes=5)
    for arm, number in (("live", 30), ("canary", 20)):
        world.ask(rollout, number, arm=arm, weight=0.05, time=old, adapter=None)
    await advance(service)
    rollout = await world.rollout(row)
    assert rollout.paused is not None
    assert rollout.paused.startswith("arms do not get their shares")
    assert world.route.canary_on

    done = await service.operator.act_on_rollout(rollout.rollout_id, "resume", **OPERATOR)
    assert done.waivers == [Waiver.SAMPLE_RATIO]
    await advance(service)
    assert (await world.rollout(row)).paused is None


async def test_a_guard_that_hangs_lets_the_canarys_lease_run_out(world: RolloutWorld) -> None:
    service, _, _ = await on_first_step(world)
    ahead = service.tables
    clock = [0.0]
    ahead._clock = lambda: clock[0]
    ahead.looked()
    beating = asyncio.create_task(ahead.heartbeat())
    try:
        heard = len(world.publisher.heard)
        await until(lambda: len(world.publisher.heard) > heard + 2, within_s=5)
        clock[0] = 61.0
        await asyncio.sleep(0.25)  # more than two beats: whatever was under way is through
        heard = len(world.publisher.heard)
        await asyncio.sleep(0.25)
        assert len(world.publisher.heard) == heard
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
