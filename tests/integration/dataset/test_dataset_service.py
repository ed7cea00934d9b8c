"""Queued runs get their snapshots, or say why not; a kill in between loses nothing."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adaptd.daemon.dataset.service import DatasetService
from adaptd.daemon.domain.states import RunState
from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.lifecycle.policies import PolicyStore
from adaptd.daemon.store.lifecycle.runs import Run, RunStore
from tests.integration.dataset.test_dataset_build import AS_OF, a_builder, a_version, fill
from tests.support.ingesting import Ingesting
from tests.support.waiting import until


class World:
    def __init__(self, database: Database, base: Path, folder: Path) -> None:
        self.runs = RunStore(database)
        self.events = Ingesting(database)
        self.book = PolicyBook()
        self.folder = folder
        self.database = database
        self.base = base
        self.service = self.a_service(base)

    def a_service(self, base: Path) -> DatasetService:
        builder = a_builder(self.events, base, self.folder / "snapshots")
        return DatasetService(self.runs, builder, self.book, tick_s=0.02, clock=self.events.clock)

    async def policy(self) -> None:
        version = a_version(self.folder / "policies")
        stored = await PolicyStore(self.database).apply(
            "support", yaml=version.yaml, sha256="s", path=version.path, now=AS_OF
        )
        self.book.remember(stored)

    async def queue(self) -> Run:
        return await self.runs.create(
            "support", policy_version=1, trigger={}, start_from=None, actor="test", now=AS_OF
        )

    async def served(self, run: Run, state: RunState) -> Run:
        """The run once the service brought it to the state, with its snapshot where it has one."""
        task = asyncio.create_task(self.service.run())

        async def there() -> Run | None:
            found = await self.runs.get(run.run_id)
            ready = found.state.is_final or found.snapshot_id is not None
            return found if ready and found.state == state else None

        try:
            return await until(there, within_s=30)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def world(tiny_base: Path, tmp_path: Path) -> AsyncIterator[World]:
    database = Database.open(":memory:")
    yield World(database, tiny_base, tmp_path)
    database.close()


async def test_a_queued_run_waits_in_building_with_its_snapshot(world: World) -> None:
    await fill(world.events)
    await world.policy()
    run = await world.served(await world.queue(), RunState.BUILDING)
    assert run.snapshot_id == f"snapshot-{run.run_id}"
    assert (world.folder / "snapshots" / run.snapshot_id / "train.parquet").exists()


async def test_a_run_left_half_built_is_built_again(world: World) -> None:
    await fill(world.events)
    await world.policy()
    run = await world.queue()
    await world.runs.move(run.run_id, RunState.BUILDING, actor="test", reason="claimed", now=AS_OF)
    assert (await world.served(run, RunState.BUILDING)).snapshot_id is not None


async def test_too_little_data_fails_the_run_with_its_cause(world: World) -> None:
    await fill(world.events, 10)
    await world.policy()
    run = await world.served(await world.queue(), RunState.FAILED)
    assert run.reason is not None
    assert run.reason.startswith("data: ")
    assert "items in" in run.reason


async def test_a_policy_version_this_release_cannot_read_fails_the_run(world: World) -> None:
    run = await world.served(await world.queue(), RunState.FAILED)
    assert run.reason is not None
    assert "this release cannot read it" in run.reason


async def test_a_full_disk_fails_the_run_with_its_cause(world: World) -> None:
    await fill(world.events)
    await world.policy()
    (world.folder / "snapshots").write_text("a file where the folder should be")
    run = await world.served(await world.queue(), RunState.FAILED)
    assert run.reason is not None
    assert run.reason.startswith("disk: ")


async def test_what_nobody_thought_of_fails_the_run_and_not_the_service(world: World) -> None:
    await fill(world.events, 3)
    await world.policy()
    base = world.folder / "base"
    shutil.copytree(world.base, base)
    (base / "tokenizer.json").write_text("{")
    world.service = world.a_service(base)
    run = await world.served(await world.queue(), RunState.FAILED)
    assert run.reason is not None
    assert run.reason.startswith("error: ")
    assert run.reason.endswith("; see the log")


async def test_a_run_cancelled_while_it_is_built_stays_cancelled(world: World) -> None:
    await world.policy()
    run = await world.queue()
    await world.runs.move(run.run_id, RunState.CANCELLED, actor="test", reason="stop", now=AS_OF)
    await world.service.build(run)
    assert (await world.runs.get(run.run_id)).state == RunState.CANCELLED
