"""Hosts that restart, hang or refuse, and gateways that missed a table: routes stay true."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adaptd.daemon.domain.ports import HostInfo
from adaptd.daemon.domain.states import AdapterState
from adaptd.daemon.wire.routes import Route, RouteTable
from tests.support.fakes import FakePublisher
from tests.support.rollout_world import (
    MODEL,
    CrashingDatabase,
    RolloutWorld,
    advance,
    begun,
    on_first_step,
    promoted,
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


async def test_a_restarted_host_gets_its_versions_back_before_its_routes(
    world: RolloutWorld,
) -> None:
    service, row = await promoted(world)
    world.host.restart()
    await service.loader.look()
    await service.tick()
    assert not world.route.ready
    await advance(service)
    assert (world.route.ready, world.route.live) == (True, row.name)
    assert row.name in world.host.adapters
    assert world.host.loads.count(row.name) >= 2


async def test_a_live_version_that_a_restarted_host_does_not_apply_is_told_until_it_is_well(
    world: RolloutWorld,
) -> None:
    service, row = await promoted(world)
    world.host.restart()
    world.host.strength[row.name] = 0.0
    await advance(service, 2)
    assert not world.route.ready
    told = service.loader.problems[row.name]
    assert told.startswith("no swap receipt: no effect")

    world.host.restart()
    world.host.strength[row.name] = 1.0
    await advance(service, 2)
    assert world.route.ready
    assert service.loader.problems == {}


async def test_what_is_no_longer_wanted_is_no_problem(world: RolloutWorld) -> None:
    row = await world.accepted()
    world.host.strength[row.name] = 0.0
    service = await begun(world)
    await advance(service, 2)
    assert row.name in service.loader.problems
    await advance(service)
    assert await world.state(row) is AdapterState.QUARANTINED
    assert service.loader.problems == {}


async def test_a_canary_waits_on_live_while_the_host_restarts(world: RolloutWorld) -> None:
    service, row, _ = await on_first_step(world)
    world.host.restart()
    await service.loader.look()
    await service.tick()
    assert (world.route.canary_on, world.route.ready) == (False, True)
    await advance(service, 2)
    assert world.route.canary == row.name


async def test_a_host_that_is_silent_at_start_keeps_live_and_loses_the_canary(
    world: RolloutWorld,
) -> None:
    service, first = await promoted(world)
    await world.accepted()
    await advance(service, 4)
    assert world.route.canary_on
    world.host.away = True
    await begun(world)
    assert (world.route.live, world.route.ready, world.route.canary_on) == (first.name, True, False)


async def test_a_version_the_host_refuses_keeps_no_other_from_being_loaded(
    world: RolloutWorld,
) -> None:
    service, live = await promoted(world)
    bad = await world.accepted()
    world.host.refuses.add(bad.name)
    await advance(service, 3)
    world.host.restart()
    await advance(service, 2)
    assert world.route.ready
    assert live.name in world.host.adapters
    assert f"refuses {bad.name}" in (await world.rollout(bad)).evidence["waits"]


async def test_the_epoch_starts_above_the_store_and_every_gateway(world: RolloutWorld) -> None:
    table = RouteTable(epoch=7, base="base", routes={MODEL: Route(alias=MODEL)})
    await world.routes.add(table, reason="before", now=datetime.now(UTC))
    world.publisher = FakePublisher(epoch=41)
    await begun(world)
    assert world.publisher.table is not None
    assert world.publisher.table.epoch == 42
    assert await world.routes.current() == world.publisher.table


async def test_a_gateway_found_ahead_later_is_overtaken(world: RolloutWorld) -> None:
    world.publisher.away = True
    service = await begun(world)
    world.publisher.table = RouteTable(epoch=99, base="base")
    world.publisher.away = False
    await service.tables.publish()
    await advance(service)
    assert world.publisher.table.epoch == 100
    assert MODEL in world.publisher.table.routes


async def test_routes_are_in_the_store_before_any_gateway_has_them(world: RolloutWorld) -> None:
    service, row, _ = await on_first_step(world)
    epochs = [table.epoch for table in world.publisher.heard]
    assert epochs == sorted(epochs)
    assert await world.routes.current() == world.publisher.table
    assert service.tables.table == world.publisher.table
    assert (await world.rollout(row)).step_started_at is not None


async def test_a_host_that_hangs_at_start_does_not_keep_the_routes_back(
    world: RolloutWorld,
) -> None:
    _, first = await promoted(world)

    async def hang() -> HostInfo:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    world.host.describe = hang
    heard = len(world.publisher.heard)
    await begun(world)
    assert len(world.publisher.heard) == heard + 1
    assert (world.route.live, world.route.ready) == (first.name, True)


async def test_the_heartbeat_goes_on_while_the_host_hangs(world: RolloutWorld) -> None:
    await on_first_step(world)
    service = await begun(world)

    async def hang() -> frozenset[str]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    world.host.loaded = hang
    running = asyncio.create_task(service.run())
    try:
        await until(lambda: len(world.publisher.heard) > 0, within_s=5)
        heard = len(world.publisher.heard)
        await until(lambda: len(world.publisher.heard) > heard + 10, within_s=5)
        assert world.route.canary_on
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
