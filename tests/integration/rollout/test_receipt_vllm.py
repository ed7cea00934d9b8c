"""The swap receipt on a real vLLM: what the trainer made passes, everything else is refused."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adaptd.daemon.domain.bases import base_digest
from adaptd.daemon.domain.receipts import Receipt
from adaptd.daemon.rollout.receipts import ReceiptService
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.lifecycle.adapters import AdapterStore, Origin
from adaptd.daemon.store.lifecycle.receipts import ReceiptStore
from adaptd.serving.host.vllm_client import VllmHost
from tests.support.tiny_model import LAYERS, make_tiny_base
from tests.support.trained_adapters import (
    changed,
    hash_of,
    moved_off,
    random_ids,
    scaled,
    train_adapter,
    without_layer,
)
from tests.support.vllm_server import TinyServer

ANSWER = [11, 12, 13, 14, 2]


def train(folder: Path, base_dir: Path) -> Path:
    texts = random_ids(1, 48, 36, below=300)
    return train_adapter(folder, base_dir, texts=texts, answers=[ANSWER] * len(texts))


def place(path: str, adapter: Path) -> None:
    """Let a version's directory be one that was made elsewhere."""
    Path(path).symlink_to(adapter)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    return train(tmp_path_factory.mktemp("training") / "run", tiny_base)


@pytest.fixture
async def host(vllm: TinyServer) -> AsyncIterator[VllmHost]:
    async with vllm.host() as connected:
        yield connected


@pytest.fixture
async def check(
    host: VllmHost, tiny_base: Path, tmp_path: Path
) -> AsyncIterator[Callable[..., object]]:
    """Checks the adapter in a directory as a version of its own."""
    database = Database.open(":memory:")
    adapters, receipts = AdapterStore(database), ReceiptStore(database)
    service = ReceiptService(host, receipts, adapters, base_dir=tiny_base)

    async def asked(adapter: Path, *, digest: str | None = None) -> Receipt:
        base = digest or base_digest(tiny_base)
        origin = Origin(content_hash=hash_of(adapter), base_digest=base)
        row = await adapters.add(
            "receipt", origin, folder=tmp_path, actor="test", now=datetime.now(UTC)
        )
        place(row.path, adapter)
        try:
            return await service.check(row.name)
        finally:
            await host.unload(row.name)

    yield asked
    database.close()


async def test_what_the_trainer_made_passes(check: Callable, trained: Path) -> None:
    receipt = await check(trained)
    assert receipt.passed, receipt.reason
    assert receipt.slope == pytest.approx(1, abs=0.05)
    assert receipt.report["noise"] < 0.01  # the base scored twice


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (scaled(0.8), "wrong strength: 0."),
        (scaled(1.25), "wrong strength: 1."),
        (without_layer(0), ""),
        (without_layer(LAYERS // 2), ""),
        (without_layer(LAYERS - 1), ""),
        (moved_off, "no effect"),
    ],
    ids=["x0.8", "x1.25", "no first layer", "no middle layer", "no last layer", "no module"],
)
async def test_what_the_server_does_not_apply_as_trained_is_refused(
    check: Callable, trained: Path, tmp_path: Path, change: Callable, reason: str
) -> None:
    receipt = await check(changed(trained, tmp_path / "changed", change))
    assert not receipt.passed
    assert receipt.reason.startswith(reason)


async def test_a_file_that_lost_a_layer_is_refused_unloaded(
    check: Callable, trained: Path, tmp_path: Path
) -> None:
    damaged = changed(trained, tmp_path / "damaged", without_layer(1), sealed=False)
    receipt = await check(damaged)
    assert receipt.reason == "adapter_model.safetensors is not what the trainer wrote"
    assert receipt.slope is None


async def test_another_base_is_refused_by_its_digest_and_by_its_scores(
    check: Callable, tmp_path: Path
) -> None:
    other = make_tiny_base(tmp_path / "other", seed=1)
    adapter = train(tmp_path / "run", other)
    by_digest = await check(adapter, digest=base_digest(other))
    assert by_digest.reason.startswith("trained on base")
    by_scores = await check(adapter)  # as if its manifest lied
    assert by_scores.reason.startswith("another base")
