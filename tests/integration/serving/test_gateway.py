"""The gateway over real HTTP, through the official client."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.gateway_world import V1, Site, captured, said, site

ASK: Any = [{"role": "user", "content": "hello there"}]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as running:
        await running.publish(live=V1)
        yield running


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
