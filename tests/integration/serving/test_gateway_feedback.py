"""POST /v1/feedback, over real HTTP to the daemon's door."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from adaptd.daemon.wire.signing import derive, load_secret, new_response_id
from tests.support.gateway_world import V1, Site, site

ASK: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as running:
        await running.publish(live=V1)
        yield running


async def an_answer(here: Site) -> str:
    async with here.client() as client:
        answer = await client.chat.completions.create(model="support", messages=ASK)
    return answer.id


async def test_feedback_is_answered_once_the_daemon_has_it(here: Site) -> None:
    interaction = await an_answer(here)
    async with here.http() as http:
        answer = await http.post(
            "/v1/feedback",
            json={"interaction": interaction, "kind": "rating", "value": -1, "user": "ada"},
        )

    assert answer.status_code == 200
    (event,) = here.door.feedback
    assert answer.json() == {"accepted": [{"id": event.id, "interaction": interaction}]}
    assert (event.interaction, event.kind, event.value) == (interaction, "rating", -1)
    assert (event.user, event.source, event.tenant) == ("ada", "user", "shop")


async def test_a_repeat_under_the_same_id_is_the_same_event(here: Site) -> None:
    body = {"interaction": await an_answer(here), "kind": "correction", "text": "x", "id": "f1"}
    async with here.http() as http:
        first = await http.post("/v1/feedback", json=body)
        again = await http.post("/v1/feedback", json=body)

    assert first.json() == again.json()
    assert {event.id for event in here.door.feedback} == {"shop:f1"}
    assert len(here.door.feedback) == 2  # the store keeps one event of an id


async def test_a_list_is_taken_whole_or_not_at_all(here: Site) -> None:
    interaction = await an_answer(here)
    good = {"interaction": f"chatcmpl-{interaction}", "kind": "comment", "text": "fine"}
    async with here.http() as http:
        refused = await http.post("/v1/feedback", json=[good, good | {"text": " "}])
        assert (refused.status_code, here.door.feedback) == (400, [])
        taken = await http.post("/v1/feedback", json=[good, good | {"source": "agent"}])

    assert taken.status_code == 200
    assert [event.source for event in here.door.feedback] == ["user", "agent"]
    assert {event.interaction for event in here.door.feedback} == {interaction}
    assert here.door.feedback[0].user is not None
    assert here.door.feedback[0].user.startswith("token:")


async def test_only_the_tenant_that_got_an_answer_may_judge_it(here: Site) -> None:
    interaction = await an_answer(here)
    body = {"interaction": interaction, "kind": "rating", "value": 1}
    elsewhere = new_response_id(derive(load_secret(here.place.home / "x.key"), "ids"), "shop")
    async with here.http(here.place.other_token) as http:
        foreign = await http.post("/v1/feedback", json=body)
    async with here.http() as http:
        made_up = await http.post("/v1/feedback", json=body | {"interaction": elsewhere})
        nonsense = await http.post("/v1/feedback", json=body | {"interaction": "é" * 9})

    assert [foreign.status_code, made_up.status_code, nonsense.status_code] == [404, 404, 404]
    assert foreign.json()["error"]["code"] == "interaction_not_found"
    assert here.door.feedback == []


async def test_a_source_beyond_the_token_is_refused(here: Site) -> None:
    body = {"interaction": await an_answer(here), "kind": "rating", "value": 1}
    async with here.http() as http:
        answer = await http.post("/v1/feedback", json=body | {"source": "reviewer"})
    async with here.http(here.place.control) as http:
        without_scope = await http.post("/v1/feedback", json=body)

    assert (answer.status_code, without_scope.status_code) == (403, 403)
    assert here.door.feedback == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "rating"},
        {"kind": "rating", "value": 0.5},
        {"kind": "rating", "value": 9, "scale": [1, 5]},
        {"kind": "rating", "value": 1, "scale": [1, 1]},
        {"kind": "correction", "text": "  "},
        {"kind": "preference", "chosen": "a"},
        {"kind": "label", "name": "a"},
        {"kind": "metric", "name": "a", "value": "b"},
        {"kind": "praise", "value": 1},
        {"kind": "rating", "value": 1, "choice": -1},
        {"kind": "rating", "value": 1, "adapter": V1},
        {"kind": "rating", "value": 1, "tags": {"a": 1}},
        {"kind": "rating", "value": 1, "time": "2026-01-01T00:00:00"},
    ],
)
async def test_feedback_that_says_nothing_usable_is_a_400(here: Site, wrong: dict) -> None:
    interaction = new_response_id(derive(load_secret(here.settings.secret_path), "ids"), "shop")
    async with here.http() as http:
        answer = await http.post("/v1/feedback", json={"interaction": interaction} | wrong)

    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
    assert here.door.feedback == []


async def test_what_the_daemon_does_not_take_is_a_503(here: Site) -> None:
    body = {"interaction": await an_answer(here), "kind": "rating", "value": 1}
    here.door.status = 500
    async with here.http() as http:
        answer = await http.post("/v1/feedback", json=body)
        here.door.status = 200
        again = await http.post("/v1/feedback", json=body)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert again.status_code == 200
