"""What operators may do to a rollout, and what becomes of its version."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adaptd.daemon.domain.bases import DIGEST_FILE
from adaptd.daemon.domain.states import AdapterState, RolloutState
from adaptd.daemon.wire.errors import RefusedError
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
from tests.support.waiting import LIMIT_S


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
async def world(tmp_path: Path, tiny_dir: Path) -> AsyncIterator[RolloutWorld]:
    database = CrashingDatabase.open(":memory:")
    yield RolloutWorld(database, tmp_path, tiny_dir)
    database.close()


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
    await service.tables.publish()
    await advance(service)
    assert world.route.live is None
    assert "published_at" in (await world.rollout(first)).evidence


async def test_a_rollback_does_not_wait_for_a_base_that_is_read(
    world: RolloutWorld, tmp_path: Path
) -> None:
    service, _ = await promoted(world)
    digest = world.route.base_digest
    slow = make_tiny_base(tmp_path / "slow")
    os.truncate(slow / "model.safetensors", 4 << 30)  # seconds to read, no room on the disk
    (slow / DIGEST_FILE).unlink(missing_ok=True)
    service._coordinator._bases, service._coordinator._digests = {"tiny": slow}, {}
    reading = asyncio.create_task(service._coordinator.read_bases())
    async with asyncio.timeout(LIMIT_S):
        assert (await service.operator.roll_back(MODEL, **OPERATOR)).published
    assert not reading.done()
    assert world.route.base_digest == digest
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
