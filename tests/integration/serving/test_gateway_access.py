"""Access to the gateway by token, route and field: the rest is refused."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from adaptd.daemon.wire.tokens import create_token
from tests.support.gateway_world import BASE, V1, V2, Site, captured, said, site

ASK: Any = [{"role": "user", "content": "hello there"}]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as running:
        await running.publish(live=V1)
        yield running


@pytest.mark.parametrize("model", ["sales", V1, V2, BASE, "support@v9-00000000", "../x"])
async def test_only_aliases_can_be_asked(here: Site, model: str) -> None:
    async with here.client() as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model=model, messages=ASK)

    assert caught.value.response.json()["error"]["code"] == "model_not_found"
    assert here.server.seen == []
    (event,) = await captured(here)
    assert (event.status, event.model, event.adapter, event.arm) == ("refused", model, None, None)


@pytest.mark.parametrize(
    "extra",
    [
        {"priority": -1},
        {"request_id": "mine"},
        {"chat_template": "{{ messages }}"},
        {"prompt_logprobs": 1},
        {"documents": []},
        {"unheard_of": 1},
        {"stream": "yes"},
        {"metadata": {"a": 1}},
        {"user": "u" * 200},
    ],
)
async def test_fields_that_are_not_allowed_are_refused(here: Site, extra: dict) -> None:
    async with here.http() as http:
        body = {"model": "support", "messages": ASK} | extra
        answer = await http.post("/v1/chat/completions", json=body)

    assert answer.status_code == 400
    (name,) = extra
    assert answer.json()["error"]["param"] == name
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert here.server.seen == []
    (event,) = await captured(here)
    assert (event.status, event.model) == ("refused", "support")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"a": NaN}', b"[" * 100_000, b'{"messages":[]}']
)
async def test_a_body_that_cannot_be_read_is_a_400(here: Site, body: bytes) -> None:
    async with here.http() as http:
        answer = await http.post("/v1/chat/completions", content=body)

    assert answer.status_code == 400
    (event,) = await captured(here)
    assert (event.status, event.model) == ("refused", "-")


async def test_a_body_that_is_too_large_is_a_413(tmp_path: Path) -> None:
    async with site(tmp_path, max_body_bytes=1000) as here:
        await here.publish(live=V1)
        async with here.http() as http:
            body = {"model": "support", "messages": said("x" * 1000)}
            answer = await http.post("/v1/chat/completions", json=body)

        assert answer.status_code == 413
        (event,) = await captured(here)
        assert event.status == "refused"


async def test_no_header_that_vllm_obeys_gets_through(here: Site) -> None:
    headers = {"X-Vllm-Priority": "-9", "X-Request-Id": "mine", "X-Data-Parallel-Rank": "0"}
    async with here.http() as http:
        body = {"model": "support", "messages": ASK}
        answer = await http.post("/v1/chat/completions?x=1", json=body, headers=headers)

    (asked,) = here.server.seen
    assert set(asked.headers) <= {
        "accept",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "x-request-id",
    }
    assert asked.headers["x-request-id"] == answer.json()["id"]
    assert int(asked.headers["content-length"]) == len(
        json.dumps(asked.body, separators=(",", ":"))
    )
    (event,) = await captured(here)
    assert event.client_request_id == "mine"


CLOSED = [
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/v1/unload_lora_adapter"),
    ("POST", "/adapters"),
    ("POST", "/invocations"),
    ("POST", "/tokenize"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/responses"),
    ("POST", "/v1/chat/completions/"),
    ("GET", "/v1/chat/completions"),
    ("POST", "/v1/chat/completions/batch"),
    ("POST", "//v1/chat/completions"),
    ("POST", "/health"),
    ("GET", "/metrics"),
    ("GET", "/adaptd/state"),
    ("PUT", "/adaptd/routes"),
    ("GET", "/adaptd/metrics"),
    ("OPTIONS", "/v1/models"),
]


async def test_everything_else_does_not_exist_for_clients(here: Site) -> None:
    for token in (here.place.token, "nobody"):
        async with here.http(token) as http:
            for method, path in CLOSED:
                answer = await http.request(method, here.url + path, json={"lora_name": "x"})
                assert (method, path, answer.status_code) == (method, path, 404)
    assert here.server.seen == []
    assert here.door.interactions == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("POST", "/v1/feedback")],
)
async def test_without_a_valid_token_nothing_is_answered(
    here: Site, method: str, path: str
) -> None:
    async with httpx.AsyncClient() as http:
        none = await http.request(method, here.url + path, json={"model": "support"})
        wrong = await http.request(
            method, here.url + path, json={}, headers={"Authorization": "Bearer adt_wrong"}
        )

    assert (none.status_code, wrong.status_code) == (401, 401)
    assert here.server.seen == []
    assert here.door.interactions == []


async def test_health_needs_no_token(here: Site) -> None:
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{here.url}/health")).status_code == 200


async def test_models_are_the_aliases(here: Site) -> None:
    async with here.client() as client:
        assert [model.id async for model in client.models.list()] == ["support"]


async def test_the_control_token_reaches_the_server_untouched_and_uncaptured(here: Site) -> None:
    async with here.http(here.place.control) as http:
        loaded = await http.post(
            "/v1/load_lora_adapter", json={"lora_name": "n", "lora_path": "/p"}
        )
        chat = {"model": V2, "messages": ASK, "prompt_logprobs": 0, "request_id": "r"}
        answer = await http.post(
            "/v1/chat/completions", json=chat, headers={"X-Request-Id": "mine"}
        )

    assert loaded.text == "Success"
    assert answer.json()["model"] == V2
    assert here.server.seen[-1].body == chat
    async with here.client() as client:
        last = await client.chat.completions.create(model="support", messages=ASK)
    (event,) = await captured(here)
    assert event.id == last.id


async def test_a_token_for_some_models_sees_no_others(here: Site, tmp_path: Path) -> None:
    token, _ = create_token(
        tmp_path / "tokens.json", tenant="shop", scopes=("chat",), models=("sales",)
    )
    async with here.client(token) as client:
        assert [model.id async for model in client.models.list()] == []
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="support", messages=ASK)


async def test_a_token_without_the_chat_scope_is_refused(here: Site, tmp_path: Path) -> None:
    token, _ = create_token(tmp_path / "tokens.json", tenant="shop", scopes=("feedback",))
    async with here.client(token) as client:
        with pytest.raises(openai.PermissionDeniedError):
            await client.chat.completions.create(model="support", messages=ASK)
    (event,) = await captured(here)
    assert event.status == "refused"
