"""The rollout's loop on a real store, with a host and a gateway in memory."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from daemon.domain.bases import DIGEST_FILE
from daemon.domain.errors import RefusedError
from daemon.domain.ports import HostInfo
from daemon.domain.rollouts import Rollout, Waiver
from daemon.domain.routes import Route, RouteTable
from daemon.domain.states import AdapterState, RolloutState
from daemon.rollout.service import RolloutService
from daemon.rollout.watch import OUTAGE
from daemon.store.adapters import AdapterRow
from tests.fakes import FakePublisher
from tests.rollout_world import MODEL, CrashingDatabase, RolloutWorld, advance
from tests.tiny_model import make_tiny_base
from tests.waiting import until

OPERATOR = {"actor": "ada", "reason": "because"}


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
async def world(tmp_path: Path, tiny_dir: Path) -> AsyncIterator[RolloutWorld]:
    database = CrashingDatabase.open(":memory:")
    yield RolloutWorld(database, tmp_path, tiny_dir)
    database.close()


async def begun(world: RolloutWorld) -> RolloutService:
    service = world.service()
    await service.begin()
    return service


async def on_first_step(world: RolloutWorld) -> tuple[RolloutService, AdapterRow, Rollout]:
    row = await world.accepted()
    service = await begun(world)
    await advance(service, 3)
    rollout = await world.rollout(row)
    assert (rollout.state, rollout.step) == (RolloutState.STEP, 1)
    return service, row, rollout


async def promoted(world: RolloutWorld) -> tuple[RolloutService, AdapterRow]:
    """A version that went live on its evidence."""
    service, row, rollout = await on_first_step(world)
    world.negatives(rollout, live=40, canary=2, weight=0.25)
    await advance(service, 4)
    assert await world.state(row) is AdapterState.LIVE
    return service, row


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
    await service.residency.tick()
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
    assert row.name not in service.residency.verified


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
    await service.keeper.publish()
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


async def test_a_paused_rollout_keeps_its_share_and_its_guard(world: RolloutWorld) -> None:
    service, row, rollout = await on_first_step(world)
    await service.operator.act_on_rollout(rollout.rollout_id, "pause", **OPERATOR)
    await advance(service, 3)
    rollout = await world.rollout(row)
    assert (rollout.state, rollout.paused) == (RolloutState.STEP, "because")
    assert world.route.weight == 0.05

    world.negatives(rollout, live=2, canary=12, weight=0.05)
    await service.tick()
    assert (await world.rollout(row)).state is RolloutState.ROLLED_BACK


async def test_a_resumed_rollout_goes_on(world: RolloutWorld) -> None:
    service, row, rollout = await on_first_step(world)
    await service.operator.act_on_rollout(rollout.rollout_id, "pause", **OPERATOR)
    await service.operator.act_on_rollout(rollout.rollout_id, "resume", **OPERATOR)
    world.negatives(rollout, live=40, canary=2, weight=0.25)
    await advance(service, 3)
    assert await world.state(row) is AdapterState.LIVE


async def test_an_aborted_rollout_retires_its_version(world: RolloutWorld) -> None:
    service, row, rollout = await on_first_step(world)
    await service.operator.act_on_rollout(rollout.rollout_id, "abort", **OPERATOR)
    assert await world.state(row) is AdapterState.RETIRED
    assert not world.route.canary_on
    await advance(service, 3)
    assert len(await world.rollouts.of_candidate(row.name)) == 1  # it does not start again


@pytest.mark.parametrize("action", ["pause", "resume", "promote", "abort"])
async def test_what_is_over_cannot_be_changed(world: RolloutWorld, action: str) -> None:
    service, _, rollout = await on_first_step(world)
    await service.operator.act_on_rollout(rollout.rollout_id, "abort", **OPERATOR)
    with pytest.raises(RefusedError, match="it is aborted"):
        await service.operator.act_on_rollout(rollout.rollout_id, action, **OPERATOR)


async def test_rollback_takes_the_canary_first_then_live_then_refuses(
    world: RolloutWorld,
) -> None:
    service, first = await promoted(world)
    second = await world.accepted()
    await advance(service, 4)
    assert world.route.canary == second.name

    done = await service.operator.roll_back(MODEL, **OPERATOR)
    assert (done.version, done.to, done.published) == (second.name, first.name, True)
    assert (world.route.live, world.route.canary_on) == (first.name, False)
    done = await service.operator.roll_back(MODEL, **OPERATOR)
    assert (done.version, done.to) == (first.name, None)
    assert (world.route.live, world.route.holdback) == (None, 0.0)
    rollout = await world.rollout(first)
    assert rollout.state is RolloutState.ROLLED_BACK
    assert "published_at" in rollout.evidence
    with pytest.raises(RefusedError, match="the base is live"):
        await service.operator.roll_back(MODEL, **OPERATOR)


async def test_a_rollback_that_no_gateway_heard_is_published_by_the_heartbeat(
    world: RolloutWorld,
) -> None:
    service, first = await promoted(world)
    world.publisher.away = True
    done = await service.operator.roll_back(MODEL, **OPERATOR)
    assert (done.published, world.route.live) == (False, first.name)

    world.publisher.away = False
    await service.keeper.publish()
    await advance(service)
    assert world.route.live is None
    assert "published_at" in (await world.rollout(first)).evidence


async def test_a_rollback_does_not_wait_for_a_base_that_is_read(
    world: RolloutWorld, tmp_path: Path
) -> None:
    service, _ = await promoted(world)
    digest = world.route.base_digest
    slow = make_tiny_base(tmp_path / "slow")
    weights = slow / "model.safetensors"
    weights.unlink()
    os.mkfifo(weights)  # its end comes when we say so
    (slow / DIGEST_FILE).unlink(missing_ok=True)
    service._desk._bases, service._desk._digests = {"tiny": slow}, {}
    reading = asyncio.create_task(service._desk.read_bases())
    end = await asyncio.to_thread(os.open, weights, os.O_WRONLY)
    try:
        async with asyncio.timeout(5):
            assert (await service.operator.roll_back(MODEL, **OPERATOR)).published
        assert not reading.done()
        assert world.route.base_digest == digest
    finally:
        os.close(end)
        await reading
    await advance(service)
    assert world.route.base_digest not in (None, digest)


async def test_a_version_past_the_gate_needs_a_reason_and_takes_every_step(
    world: RolloutWorld,
) -> None:
    service, row = await begun(world), await world.version()
    with pytest.raises(RefusedError, match="no evaluation accepted it"):
        await service.operator.start_rollout(row.name, override_reason=None, actor="ada")
    rollout = await service.operator.start_rollout(row.name, override_reason="hot fix", actor="ada")
    assert (rollout.override_reason, rollout.approved_by) == ("hot fix", "ada")
    await advance(service, 3)
    assert world.route.weight == 0.05

    other = await world.version()
    with pytest.raises(RefusedError, match=f"{rollout.rollout_id} of {row.name} is still"):
        await service.operator.start_rollout(other.name, override_reason="me too", actor="ada")


async def test_a_quarantined_version_cannot_be_started(world: RolloutWorld) -> None:
    service, row, _ = await on_first_step(world)
    await service.operator.roll_back(MODEL, **OPERATOR)
    with pytest.raises(RefusedError, match="it is quarantined"):
        await service.operator.start_rollout(row.name, override_reason="again", actor="ada")


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


async def test_a_rollback_of_live_ends_a_rollout_that_waits_to_be_approved(
    world: RolloutWorld,
) -> None:
    service, first = await promoted(world)
    world.use(approval="manual")
    second = await world.accepted()
    await advance(service)
    assert (await world.rollout(second)).state is RolloutState.LOADING
    await service.operator.roll_back(MODEL, **OPERATOR)
    await advance(service)
    rollout = await world.rollout(second)
    assert (rollout.state, rollout.previous) == (RolloutState.ABORTED, first.name)
    assert await world.state(second) is AdapterState.RETIRED


async def test_an_aborted_version_may_start_again_on_its_verdict(world: RolloutWorld) -> None:
    service, row, rollout = await on_first_step(world)
    await service.operator.act_on_rollout(rollout.rollout_id, "abort", **OPERATOR)
    again = await service.operator.start_rollout(row.name, override_reason=None, actor="ada")
    assert again.override_reason is None


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


async def test_a_restarted_host_gets_its_versions_back_before_its_routes(
    world: RolloutWorld,
) -> None:
    service, row = await promoted(world)
    world.host.restart()
    await service.residency.look()
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
    told = service.residency.problems[row.name]
    assert told.startswith("no swap receipt: no effect")

    world.host.restart()
    world.host.strength[row.name] = 1.0
    await advance(service, 2)
    assert world.route.ready
    assert service.residency.problems == {}


async def test_what_is_no_longer_wanted_is_no_problem(world: RolloutWorld) -> None:
    row = await world.accepted()
    world.host.strength[row.name] = 0.0
    service = await begun(world)
    await advance(service, 2)
    assert row.name in service.residency.problems
    await advance(service)
    assert await world.state(row) is AdapterState.QUARANTINED
    assert service.residency.problems == {}


async def test_a_canary_waits_on_live_while_the_host_restarts(world: RolloutWorld) -> None:
    service, row, _ = await on_first_step(world)
    world.host.restart()
    await service.residency.look()
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
    await service.keeper.publish()
    await advance(service)
    assert world.publisher.table.epoch == 100
    assert MODEL in world.publisher.table.routes


async def test_routes_are_in_the_store_before_any_gateway_has_them(world: RolloutWorld) -> None:
    service, row, _ = await on_first_step(world)
    epochs = [table.epoch for table in world.publisher.heard]
    assert epochs == sorted(epochs)
    assert await world.routes.current() == world.publisher.table
    assert service.keeper.table == world.publisher.table
    assert (await world.rollout(row)).step_started_at is not None


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
    plan = service._desk.plan(rollout)
    assert plan is not None

    async def blind(later: timedelta) -> str | None:
        now = datetime.now(UTC) + later
        seen = await service._watch.situation(service._desk.world, rollout, plan, now=now)
        return seen.blind

    minute = timedelta(minutes=1)
    assert await blind(20 * minute) is None  # nobody asks: nothing to be seen
    world.publisher.in_flight = {row.name: 1}
    await service.keeper.publish()
    assert await blind(20 * minute) is None
    assert await blind(29 * minute) is None
    found = await blind(31 * minute)
    assert found is not None
    assert found.startswith("no event stored since")
    world.ask(rollout, ingested_at=datetime.now(UTC) + 30 * minute)
    assert await blind(31 * minute) is None


async def test_a_quiet_hour_is_not_taken_for_stuck_ingestion(world: RolloutWorld) -> None:
    service, row, rollout = await on_first_step(world)
    plan = service._desk.plan(rollout)
    assert plan is not None
    minute = timedelta(minutes=1)

    async def blind(later: timedelta, *, in_flight: int) -> str | None:
        now = datetime.now(UTC) + later
        world.publisher.in_flight = {row.name: in_flight}
        await service.keeper.publish()
        seen = await service._watch.situation(service._desk.world, rollout, plan, now=now)
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
    await service.keeper.publish()
    await service.tick()
    service.keeper.enabled_at[rollout.rollout_id] = datetime.now(UTC) + timedelta(minutes=30)
    plan = service._desk.plan(rollout)
    assert plan is not None
    later = datetime.now(UTC) + timedelta(minutes=31)
    seen = await service._watch.situation(service._desk.world, rollout, plan, now=later)
    assert seen.blind is None


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


async def test_a_policy_that_is_gone_takes_no_service_away(world: RolloutWorld) -> None:
    _, row = await promoted(world)
    world.book.settle({}, [])
    await advance(await begun(world))
    assert (world.route.live, world.route.ready) == (row.name, True)


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


async def test_a_guard_that_hangs_lets_the_canarys_lease_run_out(world: RolloutWorld) -> None:
    service, _, _ = await on_first_step(world)
    ahead = service.keeper
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
