"""The version that answers a request, and the arm it is captured under."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from adaptd.daemon.wire.routes import share_of
from tests.support.gateway_world import V1, V2, Site, captured, site

ASK: Any = [{"role": "user", "content": "hello there"}]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as running:
        await running.publish(live=V1)
        yield running


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
