"""A restored store holds everything until it agrees with what runs, or a person lets it go."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adaptd.consumers.kafka.service import IngestStatus, PartitionLag
from adaptd.daemon.domain.rollouts import Rollout
from adaptd.daemon.recovery.restored_store import Restoration
from adaptd.daemon.store.backups.restored import Restore, RestoreStore, add_restore
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.lifecycle.adapters import AdapterStore
from adaptd.daemon.store.lifecycle.rollouts import RolloutStore
from adaptd.daemon.store.lifecycle.routes import RouteStore
from adaptd.daemon.wire.errors import RefusedError
from adaptd.daemon.wire.routes import Route, RouteTable
from tests.support.fakes import FakeHost, FakePublisher

NOW = datetime.now(UTC)  # as the daemon reads it
V7 = "support@v7-aaaaaaaa"
TABLE = RouteTable(epoch=5, base="base", routes={"support": Route(alias="support", live=V7)})


class World:
    """A store with a table, restored, beside a gateway that follows the same."""

    def __init__(self, database: Database, adapters: Path) -> None:
        self.database = database
        self.adapters = adapters
        self.publisher, self.host = FakePublisher(), FakeHost()
        self.publisher.table = TABLE
        self.lag: int | None = 0
        self.next_offset = 10
        self.state: Any = "running"

    async def ingest(self) -> IngestStatus:
        partition = PartitionLag(topic="t", partition=0, next_offset=self.next_offset, lag=self.lag)
        return IngestStatus(
            state=self.state, problem=None, partitions=[partition], last_stored_at=None
        )

    async def load(self) -> Restoration:
        return await Restoration.load(
            RestoreStore(self.database),
            RouteStore(self.database),
            self.publisher,
            self.host,
            ingest=self.ingest,
            adapters=self.adapters,
            every_s=0.01,
        )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    database = Database.open(":memory:")
    await RouteStore(database).add(TABLE, reason="test", now=NOW)
    yield World(database, tmp_path)
    database.close()


@pytest.fixture
async def restored(world: World) -> World:
    mark = Restore(restored_at=NOW, as_of=NOW, source="/backups/1", offsets=[])
    await world.database.write(lambda cursor: add_restore(cursor, mark))
    return world


async def test_a_store_that_was_never_restored_holds_nothing(world: World) -> None:
    restoration = await world.load()
    restoration.check()
    assert not restoration.holds
    assert restoration.document() is None
    with pytest.raises(RefusedError):
        await restoration.release(actor="ada", reason="x")


async def test_it_holds_until_compared_then_lets_go_by_itself_and_for_good(
    restored: World,
) -> None:
    restoration = await restored.load()
    with pytest.raises(RefusedError, match="nothing moves"):
        restoration.check()

    await restoration.tick()

    assert not restoration.holds
    assert not (await restored.load()).holds
    document = restoration.document()
    assert document is not None
    assert document["released_by"] == "daemon"


async def test_it_waits_for_a_gateway_for_the_server_and_for_the_log(restored: World) -> None:
    restored.publisher.away = restored.host.away = True
    restored.state = "waiting"
    restoration = await restored.load()
    await restoration.tick()
    assert [finding.waits for finding in restoration.findings] == [True] * 3
    assert "gateway" in (restoration.problem or "")
    restored.publisher.away = restored.host.away = False
    restored.state, restored.lag = "running", 4
    await restoration.tick()
    assert "4 messages" in (restoration.problem or "")
    restored.next_offset, restored.lag = 14, 100  # the log grew; where it ended first counts
    await restoration.tick()
    assert not restoration.holds
    assert restoration.restore is not None
    assert restoration.restore.caught_up_at is not None


async def test_routes_changed_since_need_a_person_and_rollouts_then_wait(restored: World) -> None:
    rollouts = RolloutStore(restored.database)
    rollout = Rollout(model="support", candidate=V7, policy_version=1, created_at=NOW)
    await rollouts.create(rollout, actor="t", reason="t")
    newer = {"support": Route(alias="support", live="support@v9-cccccccc")}
    restored.publisher.table = RouteTable(epoch=8, base="base", routes=newer)
    restoration = await restored.load()
    await restoration.tick()
    assert "v9" in (restoration.problem or "")
    assert not restoration.findings[0].waits

    await restoration.release(actor="ada", reason="v9 is lost")

    assert not restoration.holds
    waiting = await rollouts.get(rollout.rollout_id)
    assert waiting.withdrawn
    assert "v9 is lost" in (waiting.paused or "")


async def test_numbers_seen_anywhere_are_never_issued_again(restored: World) -> None:
    restored.host.adapters["support@v11-dddddddd"] = Path("/x")
    (restored.adapters / "support@v12-eeeeeeee").mkdir()
    (restored.adapters / "notes").mkdir()
    await (await restored.load()).tick()
    adapters = AdapterStore(restored.database)
    assert await adapters.next_number("support") == 13
    assert await adapters.next_number("other") == 1
