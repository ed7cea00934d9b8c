"""The AdapterHost port: one contract for the fake and for vLLM, then tests of vLLM alone."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adaptd.daemon.demo.broker import free_port
from adaptd.daemon.domain.ports import AdapterHost
from adaptd.daemon.wire.errors import HostError
from adaptd.serving.host.launch import SPARE_LORAS
from adaptd.serving.host.vllm_client import VllmHost
from tests.support.fakes import FakeHost
from tests.support.tiny_model import FORMAT, make_tiny_adapter
from tests.support.vllm_server import TinyServer

IDS = [[5 + (7 * k + 3 * i) % 400 for i in range(12 + k)] for k in range(20)]


@pytest.fixture(params=["fake", "vllm"])
async def host(request: pytest.FixtureRequest) -> AsyncIterator[AdapterHost]:
    if request.param == "fake":
        yield FakeHost()
        return
    server: TinyServer = request.getfixturevalue("vllm")
    async with server.host() as real:
        yield real


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return make_tiny_adapter(tmp_path / "adapter")


async def test_it_tells_what_it_is_and_says_the_same_again(host: AdapterHost) -> None:
    info = await host.describe()

    assert info.base
    assert info.instance
    assert info.max_model_len > 0
    assert await host.describe() == info


async def test_a_gateway_in_the_server_says_in_which_format_it_computes(vllm: TinyServer) -> None:
    async with vllm.host() as real:
        assert (await real.describe()).dtype == FORMAT


async def test_a_loaded_version_is_listed_until_it_is_unloaded(
    host: AdapterHost, adapter: Path
) -> None:
    name = "listed@v1-0000000a"

    await host.load(name, adapter)
    assert name in await host.loaded()
    await host.unload(name)
    assert name not in await host.loaded()


async def test_loading_and_unloading_may_be_repeated(host: AdapterHost, adapter: Path) -> None:
    name = "again@v1-0000000b"

    await host.load(name, adapter)
    await host.load(name, adapter)
    assert name in await host.loaded()
    await host.unload(name)
    await host.unload(name)
    assert name not in await host.loaded()


async def test_a_name_is_never_loaded_from_a_second_directory(
    host: AdapterHost, adapter: Path, tmp_path: Path
) -> None:
    name = "twice@v1-0000000c"
    await host.load(name, adapter)

    with pytest.raises(HostError, match=name):
        await host.load(name, make_tiny_adapter(tmp_path / "other", seed=2))
    await host.unload(name)


async def test_a_model_that_is_not_loaded_is_refused(host: AdapterHost) -> None:
    with pytest.raises(HostError, match="nobody@v1-0000000d"):
        await host.generate("nobody@v1-0000000d", IDS[:1], max_tokens=1)
    with pytest.raises(HostError, match="nobody@v1-0000000d"):
        await host.logprobs("nobody@v1-0000000d", IDS[:1])


async def test_every_prompt_gets_one_answer_the_same_each_time(host: AdapterHost) -> None:
    answers = await host.generate(None, IDS, max_tokens=4)

    assert len(answers) == len(IDS)
    assert await host.generate(None, IDS, max_tokens=4) == answers


async def test_nothing_asked_is_nothing_answered(host: AdapterHost) -> None:
    assert await host.generate(None, [], max_tokens=4) == []
    assert await host.logprobs(None, []) == []


async def test_every_token_is_scored_and_the_first_is_zero(host: AdapterHost) -> None:
    scores = await host.logprobs(None, IDS)

    assert [len(one) for one in scores] == [len(ids) for ids in IDS]
    assert all(one[0] == 0.0 for one in scores)
    assert all(score < 0 for one in scores for score in one[1:])
    assert await host.logprobs(None, IDS) == scores


async def test_an_adapter_changes_the_scores_of_its_own_name_only(
    host: AdapterHost, adapter: Path
) -> None:
    name = "scored@v1-0000000e"
    before = await host.logprobs(None, IDS)

    await host.load(name, adapter)
    changed = await host.logprobs(name, IDS)

    assert await host.logprobs(None, IDS) == before
    changes = [
        abs(a - b) for x, y in zip(changed, before, strict=True) for a, b in zip(x, y, strict=True)
    ]
    assert sum(changes) / len(changes) > 0.05
    await host.unload(name)


async def test_answers_come_in_the_order_of_their_prompts(vllm: TinyServer) -> None:
    """More prompts than one call holds, of every length, against each asked alone."""
    async with vllm.host() as host:
        together = await host.logprobs(None, IDS)
        alone = [(await host.logprobs(None, [ids]))[0] for ids in IDS[::6]]

    for one, other in zip(together[::6], alone, strict=True):
        assert one == pytest.approx(other, abs=0.2)  # bf16 in another batch


async def test_the_ids_of_a_conversation_are_those_of_the_template(vllm: TinyServer) -> None:
    async with vllm.host() as host:
        ids = await host.tokenize([{"role": "user", "content": "Where is my parcel?"}])

    assert ids[0] == 1  # <|im_start|>
    assert ids.count(2) == 2  # system and user turns are closed, the answer is open


async def test_what_vllm_says_of_a_refusal_is_passed_on(vllm: TinyServer, tmp_path: Path) -> None:
    async with vllm.host() as host:
        await host.check_lora()
        with pytest.raises(HostError, match="No adapter found"):
            await host.load("missing@v1-0000000f", tmp_path / "missing")
        with pytest.raises(HostError, match="1024"):  # the longest it serves
            await host.logprobs(None, [[5] * 2000])


async def test_the_slots_of_a_server_are_known_once_an_adapter_has_answered(
    vllm: TinyServer, adapter: Path
) -> None:
    async with vllm.host() as host:
        await host.load("slots@v1-00000010", adapter)
        await host.generate("slots@v1-00000010", IDS[:1], max_tokens=1)

        assert await host.slots() == vllm.settings.max_loras + SPARE_LORAS
        await host.unload("slots@v1-00000010")


async def test_the_base_answers_as_itself_beside_as_many_adapters_as_fit(
    vllm: TinyServer, adapter: Path
) -> None:
    """One call after another fills the slots; earlier versions must have left theirs."""
    async with vllm.host() as host, vllm.host() as other:
        alone = await host.logprobs(None, IDS)
        for round_ in range(2):
            names = [f"beside@v{round_}{k}-0000000{k}" for k in range(vllm.settings.max_loras)]
            for name in names:
                await host.load(name, adapter)
                await host.generate(name, IDS[:1], max_tokens=1)
            for _ in range(4):  # different adapters may share a step
                base, *_rest = await asyncio.gather(
                    host.logprobs(None, IDS),
                    other.logprobs(names[0], IDS),
                    other.generate(names[1], IDS, max_tokens=20),
                )
                for one, before in zip(base, alone, strict=True):
                    assert one == pytest.approx(before, abs=0.2)  # bf16 in another batch
            for name in names:
                await host.unload(name)


async def test_without_the_control_token_nothing_can_be_loaded(
    vllm: TinyServer, adapter: Path
) -> None:
    async with VllmHost(vllm.url, control_token=vllm.client_token) as stranger:
        with pytest.raises(HostError):
            await stranger.load("stranger@v1-00000011", adapter)
    async with vllm.host() as host:
        assert "stranger@v1-00000011" not in await host.loaded()


async def test_a_server_that_is_away_is_a_host_error() -> None:
    async with VllmHost(f"http://127.0.0.1:{free_port()}") as host:
        with pytest.raises(HostError, match="was not answered"):
            await host.describe()
