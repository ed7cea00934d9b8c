"""Taking receipts: once per version and process of the host, whoever asks."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from adaptd.daemon.rollout.receipts import PROBES_FILE, ReceiptService
from adaptd.daemon.store.lifecycle.adapters import AdapterRow
from adaptd.daemon.store.lifecycle.receipts import ReceiptStore
from adaptd.daemon.wire.errors import HostError, RefusedError
from tests.support.rollout_world import CrashingDatabase, RolloutWorld
from tests.support.tiny_model import make_tiny_base


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
async def world(tmp_path: Path, tiny_dir: Path) -> AsyncIterator[RolloutWorld]:
    database = CrashingDatabase.open(":memory:")
    yield RolloutWorld(database, tmp_path, tiny_dir)
    database.close()


@pytest.fixture
async def row(world: RolloutWorld) -> AdapterRow:
    return await world.version()


@pytest.fixture
def service(world: RolloutWorld) -> ReceiptService:
    receipts = ReceiptStore(world.database)
    return ReceiptService(world.host, receipts, world.adapters, base_dir=world.base_dir)


async def test_a_version_is_loaded_measured_and_kept(
    world: RolloutWorld, service: ReceiptService, row: AdapterRow
) -> None:
    receipt = await service.check(row.name)
    assert (receipt.passed, receipt.instance) == (True, "instance-1")
    assert receipt.slope == pytest.approx(1)
    assert receipt.report["tokens"] > 100
    assert world.host.adapters == {row.name: Path(row.path)}
    assert await ReceiptStore(world.database).get(row.name, "instance-1") == receipt


async def test_asked_again_it_says_the_same_without_measuring(
    world: RolloutWorld, service: ReceiptService, row: AdapterRow
) -> None:
    first = await service.check(row.name)
    world.host.strength[row.name] = 0.0  # would be seen if it were measured
    await world.host.unload(row.name)
    assert await service.check(row.name) == first
    assert row.name in world.host.adapters


async def test_a_restarted_host_is_measured_again(
    world: RolloutWorld, service: ReceiptService, row: AdapterRow
) -> None:
    await service.check(row.name)
    world.host.restart()
    world.host.strength[row.name] = 1.25
    receipt = await service.check(row.name)
    assert (receipt.instance, receipt.passed) == ("instance-2", False)


async def test_two_askers_at_once_measure_once(
    world: RolloutWorld, service: ReceiptService, row: AdapterRow
) -> None:
    first, second = await asyncio.gather(service.check(row.name), service.check(row.name))
    assert first == second
    assert world.host.loads == [row.name]


async def test_a_restart_while_measuring_leaves_no_receipt(
    world: RolloutWorld, service: ReceiptService, row: AdapterRow
) -> None:
    score = world.host.logprobs

    async def restarting(
        model: str | None, sequences: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        found = await score(model, sequences)
        if model is not None:
            world.host.restart()
        return found

    world.host.logprobs = restarting
    with pytest.raises(HostError, match="restarted while"):
        await service.check(row.name)
    assert await ReceiptStore(world.database).list(row.name) == []


async def test_a_measurement_that_others_disturbed_is_taken_again(
    world: RolloutWorld, service: ReceiptService, row: AdapterRow
) -> None:
    score, asked = world.host.logprobs, 0

    async def disturbed(model: str | None, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        nonlocal asked
        asked += 1
        found = await score(model, sequences)
        return [[2 * value for value in one] for one in found] if asked == 2 else found

    world.host.logprobs = disturbed
    receipt = await service.check(row.name)
    assert receipt.passed
    assert asked == 6  # base, base again and adapter, twice
    assert [kept.passed for kept in await ReceiptStore(world.database).list(row.name)] == [True]


async def test_a_host_that_is_away_is_no_verdict(
    world: RolloutWorld, service: ReceiptService, row: AdapterRow
) -> None:
    world.host.away = True
    with pytest.raises(HostError):
        await service.check(row.name)
    assert await ReceiptStore(world.database).list(row.name) == []


async def test_a_version_without_readable_probes_is_refused_unloaded(
    world: RolloutWorld, service: ReceiptService, row: AdapterRow
) -> None:
    text = b"{}"
    (Path(row.path) / PROBES_FILE).write_bytes(text)
    seal = {"content_hash": row.content_hash, "files": {PROBES_FILE: sha256(text).hexdigest()}}
    (Path(row.path) / "manifest.json").write_text(json.dumps(seal))
    receipt = await service.check(row.name)
    assert receipt.reason is not None
    assert receipt.reason.startswith("its probes cannot be read")
    assert world.host.loads == []


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        (PROBES_FILE, "{}", "probes.json is not what the trainer wrote"),
        ("manifest.json", "{}", "its files cannot be read"),
        (
            "manifest.json",
            '{"content_hash": "0", "files": {}}',
            "its files are those of another version",
        ),
    ],
)
async def test_a_version_whose_files_are_not_the_trainers_is_refused_unloaded(
    world: RolloutWorld, service: ReceiptService, row: AdapterRow, file: str, text: str, reason: str
) -> None:
    (Path(row.path) / file).write_text(text)
    receipt = await service.check(row.name)
    assert receipt.reason is not None
    assert receipt.reason.startswith(reason)
    assert world.host.loads == []


async def test_a_version_of_another_base_is_refused_unloaded(
    world: RolloutWorld, service: ReceiptService, row: AdapterRow, tmp_path: Path
) -> None:
    service._base_dir = make_tiny_base(tmp_path / "other", seed=5)
    receipt = await service.check(row.name)
    assert receipt.reason is not None
    assert receipt.reason.startswith(f"trained on base {row.base_digest[:8]}, the host serves")
    assert world.host.loads == []


async def test_a_version_nobody_trained_is_refused(service: ReceiptService) -> None:
    with pytest.raises(RefusedError, match="there is no such version"):
        await service.check("support@v9-00000000")
