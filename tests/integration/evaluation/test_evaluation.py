"""A candidate trained by the real child, judged on a real vLLM."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adaptd.daemon.dataset.snapshot import SuiteRow
from adaptd.daemon.domain.states import AdapterState, RunState
from adaptd.daemon.evaluation.measure import SLACK_TOKENS
from adaptd.daemon.store.database.database import Database
from adaptd.serving.host.vllm_client import VllmHost
from tests.support.evaluation_world import EvaluationWorld
from tests.support.trained_adapters import random_ids, reseal, train_adapter
from tests.support.vllm_server import TinyServer

ITEMS = 40
ANSWER = [40, 41, 42, 2]  # with the stop token; the answer of every training row
GATE = {
    "must_improve": [{"metric": "nll", "on": "fresh"}],
    "must_not_drop": [{"metric": "nll", "on": "golden", "by": 0.1}],
}


@pytest.fixture
async def host(vllm: TinyServer) -> AsyncIterator[VllmHost]:
    async with vllm.host() as opened:
        yield opened


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    opened = Database.open(":memory:")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that has learnt to answer ANSWER."""
    texts = random_ids(1, 48, 36, below=300)
    folder = tmp_path_factory.mktemp("run")
    return train_adapter(folder, tiny_base, texts=texts, answers=[ANSWER] * len(texts), steps=16)


async def suite(host: VllmHost, name: str, seed: int) -> list[SuiteRow]:
    """Prompts that are in no training row, with the base's present answers as references."""
    prompts = random_ids(seed, ITEMS, 36, below=300)
    answers = await host.generate(None, prompts, max_tokens=len(ANSWER) + SLACK_TOKENS)
    return [
        SuiteRow(
            item=f"{name}-{at}",
            cluster=f"{name}-{at}",
            prompt_ids=prompt,
            reference_ids=ANSWER,
            reference=answer,
        )
        for at, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]


async def test_a_trained_candidate_is_proven_measured_and_accepted_on_a_real_server(
    host: VllmHost, database: Database, trained: Path, tiny_base: Path, tmp_path: Path
) -> None:
    world = EvaluationWorld(database, tmp_path, tiny_base, host=host, gate=GATE, in_flight=8)
    fresh, golden = await suite(host, "fresh", 2), await suite(host, "golden", 3)
    run = await world.trained(snapshot=await world.snapshot_of(fresh, golden))
    candidate = await world.adapters.get(run.adapter or "")
    shutil.rmtree(candidate.path)
    shutil.copytree(trained, candidate.path)
    reseal(Path(candidate.path), candidate.content_hash)

    await world.service().tick()

    found = await world.runs.get(run.run_id)
    assert await world.state(run) == (RunState.ACCEPTED, AdapterState.CANDIDATE), found.progress
    report = (await world.evaluation(run)).report
    assert report["findings"][0]["estimate"] > 0.5  # nats per token, against the base
    assert report["suites"]["fresh"]["exact_match"]["live"] >= 0.9  # other batches round otherwise
    assert (
        report["suites"]["golden"]["nll"]["candidate"] < report["suites"]["golden"]["nll"]["live"]
    )
    assert candidate.name in await host.loaded()
    await host.unload(candidate.name)
