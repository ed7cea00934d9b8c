"""The gateway in a real vLLM, loaded by `--middleware`."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from adaptd.serving.gateway.settings import CONFIG_VARIABLE, load_settings
from tests.support.gateway_world import EventsDoor, OpenAIServer, Place, Site, serve
from tests.support.tiny_model import make_tiny_adapter
from tests.support.vllm_server import TinyServer
from tests.support.waiting import until

ASK: Any = [{"role": "user", "content": "hello there"}]
VERSION = "gateway-test@v1-0a0b0c0d"


@pytest.fixture
async def here(vllm: TinyServer) -> AsyncIterator[Site]:
    """The gateway, an alias `support` for the base, and a daemon's door that starts empty."""
    door = EventsDoor()
    place = Place(vllm.home, vllm.client_token, "", vllm.control_token)
    settings = load_settings({CONFIG_VARIABLE: str(vllm.settings.gateway_config)})
    async with serve(door, port=urlsplit(vllm.events_url).port or 0):
        here = Site(vllm.url, OpenAIServer(), door, place, settings)
        await until(lambda: _is_shipped(here), within_s=30)  # interactions of earlier tests
        door.interactions.clear()
        await publish(here)
        yield here


async def _is_shipped(here: Site) -> bool:
    async with here.http(here.place.control) as http:
        return (await http.get("/adaptd/state")).json()["spool_events"] == 0


async def publish(here: Site, **route: Any) -> None:
    async with here.http(here.place.control) as http:
        epoch = (await http.get("/adaptd/state")).json()["epoch"]
    await here.publish(epoch=epoch + 1, base="tiny", **route)


async def interactions(here: Site, count: int) -> list[Any]:
    await until(lambda: len(here.door.interactions) >= count, within_s=30)
    assert len(here.door.interactions) == count
    return here.door.interactions


@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_through_the_official_client(here: Site, stream: bool) -> None:
    async with here.client() as client:
        answer: Any = await client.chat.completions.create(
            model="support", messages=ASK, max_tokens=8, temperature=0, stream=stream
        )
        parts = [part async for part in answer] if stream else [answer]

    assert {part.model for part in parts} == {"support"}
    assert len({part.id for part in parts}) == 1
    (event,) = await interactions(here, 1)
    assert (event.id, event.adapter, event.arm) == (parts[0].id, None, "live")
    assert (event.status, event.params["max_tokens"]) == ("ok", 8)
    assert event.usage.prompt_tokens > 0
    assert 0 < event.usage.completion_tokens <= 8
    assert event.choices[0]["finish_reason"] in ("length", "stop")
    text = "".join(p.choices[0].delta.content or "" for p in parts if p.choices) if stream else ""
    assert event.choices[0]["message"]["content"] == (text or answer.choices[0].message.content)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_through_the_official_client(here: Site, stream: bool) -> None:
    async with here.client() as client:
        answer: Any = await client.completions.create(
            model="support", prompt="hello", max_tokens=4, stream=stream
        )
        parts = [part async for part in answer] if stream else [answer]

    assert {part.model for part in parts} == {"support"}
    (event,) = await interactions(here, 1)
    assert event.choices[0]["text"] == "".join(part.choices[0].text for part in parts)


async def test_a_client_that_leaves_stops_vllm(here: Site) -> None:
    async with here.client() as client:
        stream = await client.chat.completions.create(
            model="support", messages=ASK, max_tokens=900, stream=True, extra_body=_endless()
        )
        async for _ in stream:
            break
        await stream.close()

    (event,) = await interactions(here, 1)
    assert event.status == "aborted"
    async with here.http(here.place.control) as http:

        async def idle() -> bool:
            text = (await http.get("/metrics")).text
            running = [x for x in text.splitlines() if x.startswith("vllm:num_requests_running{")]
            return bool(running) and all(line.endswith(" 0.0") for line in running)

        await until(idle, within_s=10)


async def test_a_whole_answer_nobody_waits_for_is_aborted(here: Site) -> None:
    body = {"model": "support", "messages": ASK, "max_tokens": 900} | _endless()
    async with here.http() as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post("/v1/chat/completions", json=body, timeout=0.5)

    (event,) = await interactions(here, 1)
    assert event.status == "aborted"


async def test_an_adapter_loaded_by_the_daemon_answers_under_the_alias(
    here: Site, tmp_path: Path
) -> None:
    adapter = make_tiny_adapter(tmp_path / VERSION)
    load = {"lora_name": VERSION, "lora_path": str(adapter)}
    async with here.http() as http:
        refused = await http.post("/v1/load_lora_adapter", json=load)
    async with here.http(here.place.control) as http:
        loaded = await http.post("/v1/load_lora_adapter", json=load)
    assert (refused.status_code, loaded.status_code) == (404, 200)
    await publish(here, live=VERSION)

    async with here.client() as client:
        answer = await client.chat.completions.create(model="support", messages=ASK, max_tokens=4)
        models = [model.id async for model in client.models.list()]
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(
                model="support", messages=[{"role": "user", "content": "word " * 3000}]
            )

    assert (answer.model, models) == ("support", ["support"])
    assert "gateway-test" not in caught.value.response.text
    first, second = await interactions(here, 2)
    assert (first.adapter, second.adapter) == (VERSION, VERSION)
    assert (first.status, second.status) == ("ok", "refused")
    await publish(here)
    async with here.http(here.place.control) as http:
        await http.post("/v1/unload_lora_adapter", json={"lora_name": VERSION})


async def test_a_version_vllm_does_not_have_is_a_503(here: Site) -> None:
    await publish(here, live="gateway-test@v9-99999999")
    async with here.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="support", messages=ASK)

    assert caught.value.response.status_code == 503
    assert "@v9" not in caught.value.response.text


async def test_vllms_own_routes_do_not_exist_for_clients(here: Site) -> None:
    async with here.http() as http:
        for method, path in (
            ("POST", "/v1/load_lora_adapter"),
            ("POST", "/v1/unload_lora_adapter"),
            ("POST", "/adapters"),
            ("DELETE", "/adapters/x"),
            ("POST", "/invocations"),
            ("POST", "/tokenize"),
            ("POST", "/v1/responses"),
            ("GET", "/metrics"),
            ("GET", "/version"),
            ("GET", "/openapi.json"),
        ):
            answer = await http.request(method, path, json={})
            assert (path, answer.status_code) == (path, 404)
    async with here.http(here.place.control) as http:
        assert (await http.get("/version")).status_code == 200
    assert here.door.interactions == []


def _endless() -> dict[str, Any]:
    return {"ignore_eos": True, "min_tokens": 900}
