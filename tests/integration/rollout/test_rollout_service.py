"""The rollout's loop on a real store, with a host and a gateway in memory."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from adaptd.daemon.domain.rollouts import Waiver
from adaptd.daemon.domain.states import AdapterState, RolloutState
from adaptd.daemon.wire.errors import RefusedError
from adaptd.daemon.wire.routes import RouteTable
from tests.support.rollout_world import (
    MODEL,
    OPERATOR,
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


async def test_without_versions_every_alias_is_served_by_the_base(world: RolloutWorld) -> None:
    await begun(world)
    assert world.publisher.table is not None
    assert world.publisher.table.base == "base"
    assert (world.route.live, world.route.ready) == (None, True)
    assert world.route.base_digest
    assert world.route.template_digest


async def test_an_accepted_version_goes_step_by_step_to_live(world: RolloutWorld) -> None:
    row = await world.accepted()
    service = await begun(world)
    seen: list[tuple[RolloutState, float]] = []
    for _ in range(5):
        await advance(service)
        rollout = await world.rollout(row)
        seen.append((rollout.state, world.route.weight))
        if rollout.step == 1:
            world.negatives(rollout, live=40, canary=2, weight=0.25)

    assert seen == [
        (RolloutState.LOADING, 0.0),
        (RolloutState.VERIFIED, 0.0),
        (RolloutState.STEP, 0.05),
        (RolloutState.STEP, 0.25),
        (RolloutState.LIVE, 0.0),
    ]
    assert (world.route.live, world.route.holdback) == (row.name, 0.05)
    assert world.route.salt == rollout.rollout_id
    assert world.publisher.table is not None
    assert world.publisher.table.paths == {row.name: row.path}


async def test_no_version_gets_traffic_before_its_receipt(world: RolloutWorld) -> None:
    row = await world.accepted()
    service = await begun(world)
    await service.tick()
    await service.tick()
    assert (await world.rollout(row)).state is RolloutState.LOADING  # the host was not asked yet
    assert all(not table.routes[MODEL].canary_on for table in world.publisher.heard)
    await advance(service, 2)
    assert (await world.rollout(row)).state is RolloutState.STEP


async def test_a_version_proven_before_and_unloaded_since_waits_until_it_is_there(
    world: RolloutWorld,
) -> None:
    """Evaluation took its receipt on this very process; the decisions come before the loading."""
    row = await world.accepted()
    await world.checks().check(row.name)
    await world.host.unload(row.name)
    service = await begun(world)
    for _ in range(4):
        await service.tick()
    assert (await world.rollout(row)).state is RolloutState.LOADING
    await service.loader.tick()
    await service.tick()
    await service.tick()
    assert world.route.canary == row.name


async def test_a_canary_that_the_host_lost_is_off_until_it_is_there_again(
    world: RolloutWorld,
) -> None:
    service, row, _ = await on_first_step(world)
    await world.host.unload(row.name)
    world.host.refuses.add(row.name)
    await advance(service)
    assert not world.route.canary_on
    world.host.refuses.clear()
    await advance(service)
    assert world.route.canary == row.name


async def test_a_version_unloaded_for_good_is_no_longer_proven(world: RolloutWorld) -> None:
    service, row, rollout = await on_first_step(world)
    await service.operator.act_on_rollout(rollout.rollout_id, "abort", **OPERATOR)
    await advance(service)
    assert row.name not in world.host.adapters
    assert row.name not in service.loader.verified


async def test_a_version_the_host_does_not_apply_never_gets_traffic(world: RolloutWorld) -> None:
    row = await world.accepted()
    world.host.strength[row.name] = 0.0
    await advance(await begun(world), 4)

    rollout = await world.rollout(row)
    assert rollout.state is RolloutState.ABORTED
    assert await world.state(row) is AdapterState.QUARANTINED
    assert rollout.evidence["receipt"]["reason"].startswith("no effect")
    assert all(not table.routes[MODEL].canary_on for table in world.publisher.heard)


async def test_a_version_trained_on_another_base_never_gets_traffic(
    world: RolloutWorld, tmp_path: Path
) -> None:
    row = await world.accepted()
    world.base_dir = make_tiny_base(tmp_path / "other", seed=9)
    await advance(await begun(world), 4)
    rollout = await world.rollout(row)
    assert rollout.state is RolloutState.ABORTED
    assert "trained on base" in rollout.evidence["receipt"]["reason"]


async def test_a_worse_canary_is_taken_back_at_once(world: RolloutWorld) -> None:
    service, row, rollout = await on_first_step(world)
    world.negatives(rollout, live=2, canary=12, weight=0.05)
    await service.tick()

    rollout = await world.rollout(row)
    assert rollout.state is RolloutState.ROLLED_BACK
    assert await world.state(row) is AdapterState.QUARANTINED
    assert (world.route.canary_on, world.route.live) == (False, None)
    decided, published = (
        datetime.fromisoformat(rollout.evidence[key]) for key in ("decided_at", "published_at")
    )
    assert timedelta(0) <= published - decided < timedelta(seconds=1)
    assert rollout.evidence["rolled_back_because"].startswith("worse than live on negative")
    assert rollout.evidence["guard"]["rollback_e"] >= 20


async def test_the_fuse_takes_a_broken_canary_back(world: RolloutWorld) -> None:
    service, row, rollout = await on_first_step(world)
    world.ask(rollout, 5, arm="canary", adapter=row.name, weight=0.05, status="error")
    world.ask(rollout, arm="live", adapter=None, weight=0.05)
    await service.tick()
    rollout = await world.rollout(row)
    assert rollout.state is RolloutState.ROLLED_BACK
    assert rollout.evidence["guard"]["fuse"] is True


async def test_errors_from_before_the_canary_was_on_do_not_blow_the_fuse(
    world: RolloutWorld,
) -> None:
    world.use(guard={"watch": ["negative"]})
    _, row, rollout = await on_first_step(world)
    world.ask(rollout, 5, arm="canary", adapter=row.name, weight=0.05, status="error")
    world.host.restart()  # which is why they failed
    service = await begun(world)
    await advance(service, 2)
    world.ask(rollout, arm="live", adapter=None, weight=0.05)
    await advance(service)
    assert (await world.rollout(row)).state is not RolloutState.ROLLED_BACK


async def test_a_taken_back_version_is_unloaded_once_it_is_drained(world: RolloutWorld) -> None:
    service, row, rollout = await on_first_step(world)
    world.publisher.in_flight = {row.name: 2}
    world.negatives(rollout, live=2, canary=12, weight=0.05)
    await advance(service, 3)
    assert row.name in world.host.adapters
    world.publisher.in_flight = {}
    await service.tables.publish()
    await advance(service)
    assert row.name not in world.host.adapters


async def test_without_evidence_it_holds_and_an_operator_may_let_it_go_on(
    world: RolloutWorld,
) -> None:
    service, row, _ = await on_first_step(world)
    await advance(service, 4)
    rollout = await world.rollout(row)
    assert (rollout.state, rollout.step) == (RolloutState.STEP, 2)
    assert rollout.evidence["waits"] == "inconclusive: promotion e 1 of 20"

    done = await service.operator.act_on_rollout(rollout.rollout_id, "promote", **OPERATOR)
    assert done.waivers == [Waiver.EVIDENCE]
    await advance(service)
    assert await world.state(row) is AdapterState.LIVE


async def test_manual_approval_waits_for_promote(world: RolloutWorld) -> None:
    world.use(approval="manual")
    row = await world.accepted()
    service = await begun(world)
    await advance(service, 3)
    rollout = await world.rollout(row)
    assert (rollout.state, rollout.evidence["asks"]) == (RolloutState.LOADING, True)
    assert row.name not in world.host.adapters

    await service.operator.act_on_rollout(rollout.rollout_id, "promote", **OPERATOR)
    await advance(service, 4)
    rollout = await world.rollout(row)
    assert (rollout.state, rollout.approved_by) == (RolloutState.STEP, "ada")


async def test_only_the_newest_accepted_version_is_rolled_out(world: RolloutWorld) -> None:
    old, new = await world.accepted(), await world.accepted()
    await advance(await begun(world), 3)
    assert await world.rollouts.of_candidate(old.name) == []
    assert await world.state(old) is AdapterState.RETIRED
    assert (await world.rollout(new)).state is RolloutState.STEP


async def test_a_version_judged_against_what_is_no_longer_live_is_not_rolled_out(
    world: RolloutWorld,
) -> None:
    service, first, rollout = await on_first_step(world)
    late = await world.accepted()  # as better than the base
    world.negatives(rollout, live=40, canary=2, weight=0.25)
    await advance(service, 4)
    assert world.route.live == first.name
    assert await world.state(late) is AdapterState.RETIRED
    assert await world.rollouts.of_candidate(late.name) == []

    said = f"it was judged against the base; live is {first.name} now"
    with pytest.raises(RefusedError, match=said):
        await service.operator.start_rollout(late.name, override_reason=None, actor="ada")
    forced = await service.operator.start_rollout(late.name, override_reason="yes", actor="ada")
    assert (forced.previous, forced.override_reason) == (first.name, "yes")


async def test_two_aliases_share_the_server_one_after_the_other(world: RolloutWorld) -> None:
    world.use("sales")
    first = await world.accepted("sales")
    service = await begun(world)
    await advance(service, 3)
    second = await world.accepted()
    await advance(service, 3)
    assert (await world.rollout(first)).state is RolloutState.STEP
    waiting = await world.rollout(second)
    assert waiting.state is RolloutState.LOADING
    assert waiting.evidence["waits"].startswith("it waits for rollout")

    rollout = await world.rollout(first)
    await service.operator.act_on_rollout(rollout.rollout_id, "abort", **OPERATOR)
    await advance(service, 3)
    assert (await world.rollout(second)).state is RolloutState.STEP


async def test_a_promotion_supersedes_the_rollout_before(world: RolloutWorld) -> None:
    service, first = await promoted(world)
    second = await world.accepted()
    await advance(service, 4)
    rollout = await world.rollout(second)
    assert rollout.previous == first.name
    world.negatives(rollout, live=40, canary=2, weight=0.25)
    await advance(service, 4)
    assert (world.route.live, world.route.last_good) == (second.name, first.name)
    assert (await world.rollout(first)).state is RolloutState.SUPERSEDED
    assert await world.state(first) is AdapterState.LAST_GOOD


async def test_after_promotion_worse_than_the_holdback_alerts_and_changes_nothing(
    world: RolloutWorld,
) -> None:
    service, row = await promoted(world)
    rollout = await world.rollout(row)
    world.complain(*world.ask(rollout, 60, arm="live", adapter=row.name, weight=0.5))
    await advance(service, 2)
    rollout = await world.rollout(row)
    assert (rollout.state, world.route.live) == (RolloutState.LIVE, row.name)
    assert "alert" in rollout.evidence


async def test_a_policy_that_is_gone_takes_no_service_away(world: RolloutWorld) -> None:
    _, row = await promoted(world)
    world.book.settle({}, [])
    await advance(await begun(world))
    assert (world.route.live, world.route.ready) == (row.name, True)


async def test_running_it_brings_a_version_live_and_stops_cleanly(world: RolloutWorld) -> None:
    row = await world.accepted()
    running = asyncio.create_task(world.service().run())
    try:
        await until(lambda: world.publisher.table and world.route.canary_on, within_s=10)
        world.negatives(await world.rollout(row), live=40, canary=2, weight=0.25)
        await until(lambda: world.publisher.table and world.route.live == row.name, within_s=10)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert msgspec.json.decode(msgspec.json.encode(world.publisher.table), type=RouteTable)
