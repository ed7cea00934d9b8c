"""The rollout with a real gateway in front and customers who never stop asking."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from adaptd.daemon.domain.rollouts import Rollout
from adaptd.daemon.domain.states import RolloutState
from adaptd.daemon.rollout.service import RolloutService
from adaptd.daemon.wire.routes import VERSION_NAME
from adaptd.serving.host.route_publisher import HttpPublisher
from tests.support.gateway_world import BASE, Site, site
from tests.support.rollout_world import MODEL, CrashingDatabase, RolloutWorld
from tests.support.waiting import until

LEASE_S = 1.0


@dataclass
class Customers:
    """Ask one after the other, each in a conversation of its own, and note what became of it."""

    gateway: Site
    failures: list[str] = field(default_factory=list)
    answered: list[tuple[float, str]] = field(default_factory=list)  # when asked, by whom

    async def run(self) -> None:
        async with self.gateway.http() as http:
            for number in range(100_000):
                await self._ask(http, f"talk-{number}")

    async def _ask(self, http: httpx.AsyncClient, conversation: str) -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
        headers = {"X-Adaptd-Conversation": conversation}
        asked = time.monotonic()
        answer = await http.post("/v1/chat/completions", json=body, headers=headers)
        if answer.status_code != 200:
            self.failures.append(f"{answer.status_code}: {answer.text}")
        self.answered.append((asked, self.gateway.server.seen[-1].body["model"]))
        await asyncio.sleep(0.002)

    def by(self, version: str, *, since: float) -> int:
        return sum(1 for at, who in self.answered if who == version and at >= since)


@dataclass
class Scene:
    world: RolloutWorld
    customers: Customers
    publisher: HttpPublisher

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[RolloutService]:
        """A daemon's rollout service; leaving the block kills it."""
        self.world.publisher = self.publisher
        service = self.world.service(lease_s=LEASE_S)
        task = asyncio.create_task(service.run())
        try:
            yield service
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def canary(self) -> Rollout:
        """Waits until a canary answers customers."""
        await until(self._on_step, within_s=20)
        rollout = (await self.world.rollouts.list(MODEL))[0]
        since = time.monotonic()
        await until(lambda: self.customers.by(rollout.candidate, since=since) > 2, within_s=20)
        return rollout

    async def _on_step(self) -> bool:
        found = await self.world.rollouts.list(MODEL)
        return bool(found) and found[0].state is RolloutState.STEP


@pytest.fixture
async def scene(tmp_path: Path, tiny_base: Path) -> AsyncIterator[Scene]:
    database = CrashingDatabase.open(":memory:")
    world = RolloutWorld(database, tmp_path / "adapters", tiny_base)
    world.host.base = BASE
    world.use(guard={"evidence_above": 0.01})
    async with site(tmp_path / "gateway") as gateway:
        gateway.server.loaded = world.host.adapters  # the gateway's server and the host are one
        token_path = gateway.settings.control_token_path
        async with HttpPublisher([gateway.url], token_path=token_path) as publisher:
            await gateway.publish(epoch=1)
            customers = Customers(gateway)
            asking = asyncio.create_task(customers.run())
            yield Scene(world, customers, publisher)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
    database.close()


async def test_a_rollback_reaches_every_new_request_within_a_second_and_fails_none(
    scene: Scene,
) -> None:
    await scene.world.accepted()
    async with scene.running():
        rollout = await scene.canary()
        bad = rollout.candidate
        scene.world.negatives(rollout, live=2, canary=12, weight=0.05)
        await until(lambda: _is_over(scene, rollout), within_s=10)
        over = await scene.world.rollouts.get(rollout.rollout_id)
        assert over.state is RolloutState.ROLLED_BACK
        since = time.monotonic()
        await until(lambda: scene.customers.by(BASE, since=since) > 100, within_s=20)
        assert scene.customers.by(bad, since=since) == 0
    assert "published_at" in over.evidence
    assert scene.customers.failures == []


async def test_promotion_and_rollback_of_live_fail_no_request(scene: Scene) -> None:
    row = await scene.world.accepted()
    async with scene.running() as service:
        rollout = await scene.canary()
        scene.world.negatives(rollout, live=40, canary=2, weight=0.25)
        await until(lambda: _is_live(scene, rollout), within_s=10)
        since = time.monotonic()
        await until(lambda: scene.customers.by(row.name, since=since) > 50, within_s=20)
        assert scene.customers.by(BASE, since=since) > 0  # the holdback

        done = await service.operator.roll_back(MODEL, reason="complaints", actor="ada")
        assert done.published
        since = time.monotonic()
        await until(lambda: scene.customers.by(BASE, since=since) > 50, within_s=20)
        assert scene.customers.by(row.name, since=since) == 0
    assert scene.customers.failures == []


async def test_a_killed_daemon_ends_a_canary_within_the_lease_and_its_successor_goes_on(
    scene: Scene,
) -> None:
    await scene.world.accepted()
    async with scene.running():
        rollout = await scene.canary()
    killed = time.monotonic()
    expired = killed + LEASE_S + 0.2
    await until(lambda: scene.customers.by(BASE, since=expired) > 100, within_s=10)
    assert scene.customers.by(rollout.candidate, since=expired) == 0

    async with scene.running():
        await scene.canary()
    assert scene.customers.failures == []
    versions = {who for _, who in scene.customers.answered if VERSION_NAME.match(who)}
    assert versions == {rollout.candidate}


async def _is_over(scene: Scene, rollout: Rollout) -> bool:
    found = await scene.world.rollouts.get(rollout.rollout_id)
    return found.state.is_final and "published_at" in found.evidence


async def _is_live(scene: Scene, rollout: Rollout) -> bool:
    return (await scene.world.rollouts.get(rollout.rollout_id)).state is RolloutState.LIVE
