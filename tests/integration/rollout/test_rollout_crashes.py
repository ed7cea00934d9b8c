"""Killed at any line, the rollout goes on after a restart and ends where it would have ended."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adaptd.daemon.domain.states import RolloutState
from adaptd.daemon.rollout.service import RolloutService
from adaptd.daemon.store.database.database import rows
from adaptd.daemon.store.lifecycle.adapters import AdapterRow
from adaptd.daemon.wire.errors import RefusedError
from adaptd.daemon.wire.routes import RouteTable
from tests.support.fakes import FakeHost, FakePublisher
from tests.support.rollout_world import (
    MODEL,
    CrashError,
    CrashingDatabase,
    RolloutWorld,
    advance,
    is_over,
)

Script = Callable[[RolloutWorld, RolloutService], Awaitable[bool]]  # True where there is no more


class Points:
    """Places where the process may end: around every write, publishing and loading."""

    def __init__(self) -> None:
        self.passed = 0
        self.end_at: int | None = None

    def __call__(self) -> None:
        self.passed += 1
        if self.passed == self.end_at:
            self.end_at = None
            raise CrashError


class PublisherWithPoints(FakePublisher):
    def __init__(self, point: Points) -> None:
        super().__init__()
        self.point = point

    async def publish(self, table: RouteTable) -> Any:
        self.point()
        states = await super().publish(table)
        self.point()
        return states


class HostWithPoints(FakeHost):
    def __init__(self, point: Points) -> None:
        super().__init__()
        self.point = point

    async def load(self, name: str, path: Path) -> None:
        await super().load(name, path)
        self.point()


async def newest(world: RolloutWorld) -> AdapterRow:
    return (await world.adapters.list(MODEL))[0]


async def feed(world: RolloutWorld, *, live: int, canary: int) -> None:
    """The same complaints once, on the first step of the first rollout."""
    for rollout in await world.rollouts.unfinished():
        seen = await world.database.read(lambda c: rows(c, "SELECT count(*) AS n FROM feedback"))
        if rollout.state is RolloutState.STEP and seen[0]["n"] == 0:
            world.negatives(rollout, live=live, canary=canary, weight=0.25)


async def goes_live(world: RolloutWorld, service: RolloutService) -> bool:
    await feed(world, live=40, canary=2)
    await advance(service)
    return is_over(await world.rollout(await newest(world)))


async def is_taken_back(world: RolloutWorld, service: RolloutService) -> bool:
    await feed(world, live=4, canary=20)
    await advance(service)
    return is_over(await world.rollout(await newest(world)))


async def is_refused_by_the_host(world: RolloutWorld, service: RolloutService) -> bool:
    world.host.strength[(await newest(world)).name] = 0.5
    await advance(service)
    return is_over(await world.rollout(await newest(world)))


async def is_rolled_back_by_hand(world: RolloutWorld, service: RolloutService) -> bool:
    """An operator asks again until it is done, as people do."""
    if not await goes_live(world, service):
        return False
    try:
        await service.operator.roll_back(MODEL, actor="ada", reason="complaints")
    except RefusedError:
        return True  # the base is live: it had worked
    return False


SCRIPTS = [is_taken_back, is_refused_by_the_host, is_rolled_back_by_hand]


class Site:
    """A store's file, and what outlives the daemon: the host and the gateway."""

    def __init__(self, folder: Path, base_dir: Path, *, end_at: int | None) -> None:
        self.point = Points()
        self.host, self.publisher = HostWithPoints(self.point), PublisherWithPoints(self.point)
        self.folder, self.base_dir, self.end_at = folder, base_dir, end_at
        self.world = self._opened()

    def restart(self) -> None:
        """Open the file again, as the next process does."""
        self.world.database.close()
        self.world = self._opened()
        self.world.database.point = self.point

    def _opened(self) -> RolloutWorld:
        database = CrashingDatabase.open(self.folder / "store.duckdb")
        return RolloutWorld(database, self.folder, self.base_dir, self.host, self.publisher)

    async def play(self, script: Script) -> None:
        """Run the script to its end; where the process ends, a new one goes on."""
        await self.world.accepted()
        self.world.database.point, self.point.end_at = self.point, self.end_at
        service = None
        for _ in range(40):
            try:
                if service is None:
                    service = self.world.service()
                    await service.begin()
                if await script(self.world, service):
                    await advance(service, 2)
                    return
            except CrashError:
                service = None
                self.restart()
        raise AssertionError("it came to no end")


async def outcome(world: RolloutWorld) -> dict[str, Any]:
    """Everything that matters in the end, without ids and times."""
    adapters = [row.state for row in await world.adapters.list(MODEL)]
    rollouts = [(r.state, r.step, r.paused) for r in await world.rollouts.list(MODEL)]
    route = msgspec.structs.asdict(world.route)
    shown = {key: route[key] for key in ("canary_on", "weight", "holdback", "ready")}
    live = {key: route[key] is not None for key in ("live", "last_good", "canary")}
    return {"adapters": adapters, "rollouts": rollouts} | shown | live


async def check_history(world: RolloutWorld) -> None:
    """Every change follows from the one before; every table was stored first, epochs only rise."""
    sql = "SELECT * FROM transitions WHERE subject_kind <> 'run' ORDER BY happened_at"
    last: dict[str, str] = {}
    for row in await world.database.read(lambda c: rows(c, sql)):
        assert row["from_state"] == last.get(row["subject"])
        last[row["subject"]] = row["to_state"]
    tables = await world.database.read(lambda c: rows(c, "SELECT epoch FROM route_tables"))
    epochs = [table.epoch for table in world.publisher.heard]
    assert epochs == sorted(epochs)
    assert set(epochs) <= {row["epoch"] for row in tables}
    assert await world.routes.current() == world.publisher.table


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
async def test_it_ends_the_same_wherever_it_was_killed(
    script: Script, tmp_path: Path, tiny_base: Path
) -> None:
    async def run(end_at: int | None) -> tuple[dict[str, Any], int]:
        site = Site(tmp_path / str(end_at), tiny_base, end_at=end_at)
        try:
            await site.play(script)
            await check_history(site.world)
            return await outcome(site.world), site.point.passed
        finally:
            site.world.database.close()

    expected, points = await run(None)
    assert points > 8
    for end_at in range(1, points + 1):
        ended, _ = await run(end_at)
        assert ended == expected, f"killed at point {end_at} of {points}"
