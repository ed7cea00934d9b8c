"""The gateway as a reverse proxy in front of a server that somebody else starts."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from adaptd.daemon.wire.errors import SettingsError
from adaptd.serving.gateway.proxy import create
from adaptd.serving.gateway.settings import write_settings
from tests.support.gateway_world import V1, EventsDoor, OpenAIServer, Place, Site, serve
from tests.support.waiting import LIMIT_S, until

ASK: Any = [{"role": "user", "content": "hello there"}]


@contextlib.asynccontextmanager
async def proxy(
    home: Path, upstream: str | None = None, *, limit_s: float = LIMIT_S
) -> AsyncIterator[Site]:
    door, server, place = EventsDoor(), OpenAIServer({V1: "/a/v1"}), Place.make(home)
    (home / "upstream.key").write_text("their-key\n")
    async with serve(door) as door_url, serve(server) as server_url:
        settings = place.settings(
            events_url=f"{door_url}/v1/events",
            upstream_url=upstream or server_url,
            upstream_key_path=home / "upstream.key",
            upstream_limit_s=limit_s,
        )
        async with serve(create(settings)) as url:
            here = Site(url, server, door, place, settings)
            await here.publish(live=V1)
            yield here


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_come_through_under_the_alias(tmp_path: Path, stream: bool) -> None:
    async with proxy(tmp_path) as here:
        async with here.client() as client:
            answer: Any = await client.chat.completions.create(
                model="support", messages=ASK, stream=stream
            )
            parts = [part async for part in answer] if stream else [answer]

        assert {part.model for part in parts} == {"support"}
        (asked,) = here.server.seen
        assert asked.body["model"] == V1
        assert asked.headers["authorization"] == "Bearer their-key"
        await until(lambda: len(here.door.interactions) == 1, within_s=10)
        event = here.door.interactions[0]
        assert (event.id, event.status, event.adapter) == (parts[0].id, "ok", V1)
        assert event.choices is not None
        assert event.choices[0]["message"]["content"] == "echo hello there"


async def test_a_client_that_leaves_stops_the_generation_behind_the_proxy(tmp_path: Path) -> None:
    async with proxy(tmp_path) as here:
        async with here.client() as client:
            stream = await client.chat.completions.create(
                model="support", messages=[{"role": "user", "content": "slow"}], stream=True
            )
            async for _ in stream:
                break
            await stream.close()

        await until(lambda: here.server.aborted, within_s=10)
        await until(lambda: len(here.door.interactions) == 1, within_s=10)
        assert here.door.interactions[0].status == "aborted"


async def test_a_server_that_is_away_is_a_502(tmp_path: Path) -> None:
    async with proxy(tmp_path, upstream="http://127.0.0.1:9") as here:
        async with here.client() as client:
            with pytest.raises(openai.InternalServerError) as caught:
                await client.chat.completions.create(model="support", messages=ASK)

        assert caught.value.response.status_code == 502
        await until(lambda: len(here.door.interactions) == 1, within_s=10)
        assert here.door.interactions[0].status == "error"


async def test_a_server_that_is_too_slow_is_a_504(tmp_path: Path) -> None:
    async with proxy(tmp_path, limit_s=1) as here:
        async with here.client() as client:
            with pytest.raises(openai.InternalServerError) as caught:
                await client.chat.completions.create(
                    model="support", messages=[{"role": "user", "content": "wait"}]
                )

        assert caught.value.response.status_code == 504
        await until(lambda: len(here.door.interactions) == 1, within_s=10)
        assert here.door.interactions[0].status == "timeout"


async def test_control_passes_through_and_clients_do_not(tmp_path: Path) -> None:
    async with proxy(tmp_path) as here:
        body = {"lora_name": "n", "lora_path": "/p"}
        async with here.http() as http:
            refused = await http.post("/v1/load_lora_adapter", json=body)
        async with here.http(here.place.control) as http:
            loaded = await http.post("/v1/load_lora_adapter", json=body)

        assert (refused.status_code, loaded.status_code) == (404, 200)
        assert here.server.loaded["n"] == "/p"
        assert here.server.seen[-1].headers["authorization"] == "Bearer their-key"


def test_a_proxy_without_an_upstream_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_settings(tmp_path / "gateway.json", Place.make(tmp_path).settings())
    monkeypatch.setenv("ADAPTD_GATEWAY_CONFIG", str(tmp_path / "gateway.json"))

    with pytest.raises(SettingsError, match="no server behind it"):
        create()
