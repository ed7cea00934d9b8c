"""The gateway over real HTTP, through the official client."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from daemon.domain.events import Interaction
from daemon.domain.routes import share_of
from daemon.domain.tokens import create_token
from tests.gateway_world import BASE, V1, V2, Site, site
from tests.waiting import until

ASK: Any = [{"role": "user", "content": "hello there"}]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as running:
        await running.publish(live=V1)
        yield running


async def captured(here: Site, count: int = 1) -> list[Interaction]:
    """Wait for so many interactions and make sure that no more came."""
    await until(lambda: len(here.door.interactions) >= count, within_s=10)
    assert len(here.door.interactions) == count
    return here.door.interactions


def said(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def test_a_chat_is_answered_by_the_live_version_under_the_alias(here: Site) -> None:
    async with here.client() as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="support", messages=ASK, temperature=0.5, metadata={"product": "cards"}
        )
    answer = raw.parse()

    assert answer.model == "support"
    assert answer.choices[0].message.content == "echo hello there"
    assert raw.headers["x-adaptd-interaction"] == answer.id
    assert V1 not in str(raw.headers) + raw.text
    (asked,) = here.server.seen
    assert asked.body == {"model": V1, "messages": ASK, "temperature": 0.5}
    assert asked.headers["x-request-id"] == answer.id

    (event,) = await captured(here)
    assert event.id == answer.id
    assert (event.model, event.adapter, event.tenant) == ("support", V1, "shop")
    assert (event.arm, event.weight, event.status) == ("live", 1.0, "ok")
    assert (event.unit, event.unit_kind) == (answer.id, "request")
    assert event.request == {"messages": ASK}
    assert event.params == {"temperature": 0.5}
    assert event.tags == {"product": "cards"}
    assert event.choices == [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "echo hello there"},
        }
    ]
    assert event.usage is not None
    assert (event.usage.prompt_tokens, event.usage.completion_tokens) == (7, 3)
    assert event.latency_ms is not None
    assert event.ttft_ms is None
    assert here.door.tokens == {here.place.control}


@pytest.mark.parametrize("split", [None, 1, 7, 100])
async def test_a_stream_is_masked_however_it_is_cut(here: Site, split: int | None) -> None:
    here.server.split = split
    async with here.client() as client:
        stream = await client.chat.completions.create(model="support", messages=ASK, stream=True)
        chunks = [chunk async for chunk in stream]

    assert {chunk.model for chunk in chunks} == {"support"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "echo hello there"
    assert all(chunk.usage is None for chunk in chunks)  # not asked for, so not shown
    (event,) = await captured(here)
    assert event.id == chunks[0].id
    assert event.usage is not None  # but measured
    assert event.ttft_ms is not None
    assert event.choices == [
        {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": "echo hello there"},
        }
    ]


async def test_a_client_that_asks_for_usage_in_a_stream_gets_it(here: Site) -> None:
    async with here.client() as client:
        stream = await client.chat.completions.create(
            model="support", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]

    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 10


@pytest.mark.parametrize("stream", [False, True])
async def test_completions_work_streamed_or_not(here: Site, stream: bool) -> None:
    async with here.client() as client:
        answer: Any = await client.completions.create(
            model="support", prompt="good day", max_tokens=9, stream=stream
        )
        parts = [part async for part in answer] if stream else [answer]

    assert "".join(part.choices[0].text for part in parts) == "echo good day"
    assert {part.model for part in parts} == {"support"}
    (event,) = await captured(here)
    assert event.request == {"prompt": "good day"}
    assert event.choices == [{"index": 0, "finish_reason": "stop", "text": "echo good day"}]


async def test_tool_calls_of_a_stream_are_put_together(here: Site) -> None:
    tool: Any = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
    async with here.client() as client:
        stream = await client.chat.completions.create(
            model="support", messages=said("tools"), tools=[tool], stream=True
        )
        assert [chunk async for chunk in stream]

    (event,) = await captured(here)
    assert event.request == {"messages": said("tools"), "tools": [tool]}
    assert event.choices is not None
    call = event.choices[0]["message"]["tool_calls"][0]
    assert call == {
        "id": "t1",
        "type": "function",
        "function": {"name": "look_up", "arguments": '{"card": "7"}'},
    }


async def test_a_client_that_leaves_aborts_the_answer_and_is_captured_so(here: Site) -> None:
    async with here.client() as client:
        stream = await client.chat.completions.create(
            model="support", messages=said("slow"), stream=True
        )
        seen = 0
        async for _ in stream:
            seen += 1
            if seen == 5:
                break
        await stream.close()

    (event,) = await captured(here)
    assert event.status == "aborted"
    assert event.choices is not None
    assert event.choices[0]["finish_reason"] is None
    assert event.choices[0]["message"]["content"].startswith("echo slow")
    assert here.server.aborted == [event.id]


async def test_a_client_that_leaves_before_a_whole_answer_is_captured_as_aborted(
    here: Site,
) -> None:
    async with here.http() as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.post(
                "/v1/chat/completions",
                json={"model": "support", "messages": said("wait")},
                timeout=0.3,
            )

    (event,) = await captured(here)
    assert (event.status, event.adapter) == ("aborted", V1)
    assert here.server.aborted == [event.id]


async def test_errors_of_the_server_name_the_alias_only(here: Site) -> None:
    async with here.client() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="support", messages=said("invalid"))

    message = caught.value.response.text
    assert "support (base support, /a/support/x) takes 5 tokens" in message
    assert caught.value.response.headers["x-adaptd-interaction"]
    (event,) = await captured(here)
    assert (event.status, event.adapter) == ("refused", V1)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_server_raises_is_a_500_that_names_nothing(here: Site, stream: bool) -> None:
    async with here.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(
                model="support", messages=said("raise"), stream=stream
            )

    assert V1 not in caught.value.response.text
    assert caught.value.response.json()["error"]["type"] == "server_error"
    (event,) = await captured(here)
    assert (event.status, event.adapter) == ("error", V1)


async def test_an_error_in_mid_stream_is_masked_and_captured_as_error(here: Site) -> None:
    async with here.client() as client:
        with pytest.raises(openai.APIError, match="support broke"):
            async for _ in await client.chat.completions.create(
                model="support", messages=said("break"), stream=True
            ):
                pass

    (event,) = await captured(here)
    assert event.status == "error"


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


async def test_every_request_is_captured_exactly_once(here: Site) -> None:
    texts = ["a", "invalid", "raise", "tools", "break"]
    async with here.client() as client:

        async def ask(index: int) -> None:
            try:
                answer: Any = await client.chat.completions.create(
                    model="support" if index % 7 else "sales",
                    messages=said(texts[index % 5]),
                    stream=bool(index % 2),
                )
                if index % 2:
                    _ = [chunk async for chunk in answer]
            except openai.APIError:
                pass

        await asyncio.gather(*(ask(index) for index in range(60)))

    events = await captured(here, 60)
    assert len({event.id for event in events}) == 60
    assert {event.status for event in events} == {"ok", "error", "refused"}


async def test_a_conversation_stays_on_its_arm_and_requests_spread(here: Site) -> None:
    await here.publish(
        epoch=2, live=V1, canary=V2, canary_on=True, weight=0.5, salt="r1", rollout="r1"
    )
    async with here.http() as http:
        for index in range(40):
            headers = {"X-Adaptd-Conversation": f"c{index % 10}"} if index < 20 else {}
            metadata = {"conversation": f"c{index % 10}", "k": "v"} if index < 30 else {}
            body = {"model": "support", "messages": ASK, "metadata": metadata, "user": "ada"}
            await http.post("/v1/chat/completions", json=body, headers=headers)

    events = await captured(here, 40)
    for event in events:
        assert event.unit is not None
        canary = share_of("r1", event.unit) < 0.5
        assert (event.arm, event.adapter) == (("canary", V2) if canary else ("live", V1))
        assert (event.rollout, event.weight, event.user) == ("r1", 0.5, "ada")
    named = [event for event in events if event.unit_kind == "conversation"]
    assert len(named) == 30
    assert {event.unit for event in named} == {f"shop:c{index}" for index in range(10)}
    assert {event.conversation for event in named} == {f"c{index}" for index in range(10)}
    assert {event.arm for event in events if event.unit_kind == "request"} == {"live", "canary"}


async def test_split_by_user_makes_the_user_the_unit(here: Site) -> None:
    await here.publish(epoch=2, live=V1, split="user")
    async with here.client() as client:
        await client.chat.completions.create(model="support", messages=ASK, user="ada")

    (event,) = await captured(here)
    assert (event.unit, event.unit_kind) == ("shop:ada", "user")


async def test_a_canary_the_host_lacks_is_answered_by_live_and_logged_so(here: Site) -> None:
    gone = "support@v3-33333333"
    await here.publish(
        epoch=2, live=V1, canary=gone, canary_on=True, weight=1, salt="r", rollout="r"
    )
    async with here.client() as client:
        answer = await client.chat.completions.create(model="support", messages=ASK)

    assert answer.choices[0].message.content == "echo hello there"
    (event,) = await captured(here)
    assert (event.adapter, event.arm, event.weight, event.status) == (V1, "live", 0.0, "ok")


async def test_the_guard_counts_neither_arm_until_the_host_has_the_canary_again(
    here: Site,
) -> None:
    del here.server.loaded[V2]
    await here.publish(
        epoch=2, live=V1, canary=V2, canary_on=True, weight=0.5, salt="r1", rollout="r1"
    )
    units = [f"shop:c{index}" for index in range(40)]
    ours = next(unit for unit in units if share_of("r1", unit) < 0.5)
    theirs = next(unit for unit in units if share_of("r1", unit) >= 0.5)
    async with here.http() as http:
        for index, unit in enumerate([ours, theirs, ours, ours, theirs]):
            if index == 2:
                here.server.loaded[V2] = "/a/v2"
            headers = {"X-Adaptd-Conversation": unit.removeprefix("shop:")}
            body = {"model": "support", "messages": ASK}
            await http.post("/v1/chat/completions", json=body, headers=headers)

    found = [(event.arm, event.weight) for event in await captured(here, 5)]
    assert found == [
        ("live", 0.0),
        ("live", 0.0),
        ("canary", 0.0),
        ("canary", 0.5),
        ("live", 0.5),
    ]


@pytest.mark.parametrize("route", [{"live": "support@v3-33333333"}, {"live": V1, "ready": False}])
async def test_an_alias_whose_live_version_is_not_there_is_a_503(here: Site, route: dict) -> None:
    await here.publish(epoch=2, **route)
    async with here.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="support", messages=ASK)

    assert caught.value.response.status_code == 503
    assert caught.value.response.headers["retry-after"] == "1"
    assert "@" not in caught.value.response.text
    (event,) = await captured(here)
    assert event.status == "error"


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
