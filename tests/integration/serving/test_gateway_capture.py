"""Interactions while the daemon, the disk or the gateway itself fails."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest

from adaptd.daemon.wire.errors import SettingsError
from adaptd.daemon.wire.routes import Route, RouteTable
from adaptd.serving.gateway.app import Gateway
from adaptd.serving.gateway.asgi import Message
from adaptd.serving.gateway.proxy import create
from adaptd.serving.gateway.settings import write_settings
from tests.support.broker import ROOT
from tests.support.gateway_world import (
    BASE,
    V1,
    V2,
    EventsDoor,
    OpenAIServer,
    Place,
    Site,
    serve,
    site,
)
from tests.support.waiting import LIMIT_S, until

ASK: Any = [{"role": "user", "content": "hello"}]


async def ask(here: Site, count: int = 1) -> None:
    async with here.client() as client:
        for _ in range(count):
            await client.chat.completions.create(model="support", messages=ASK)


async def test_interactions_wait_on_disk_while_the_daemon_is_away(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        here.door.status = 503
        await here.publish(live=V1)
        await ask(here, 3)
        state = await until(lambda: _state_with(here, spool_events=3), within_s=5)
        assert (state["texts_dropped"], state["rows_lost"]) == (0, 0)
        here.door.status = 200

        await until(lambda: len(here.door.interactions) == 3, within_s=15)
        await until(lambda: _state_with(here, spool_events=0), within_s=5)


async def test_a_new_gateway_ships_what_the_last_one_left(tmp_path: Path) -> None:
    async with site(tmp_path, stop_grace_s=0.5) as here:
        here.door.status = 503
        await here.publish(live=V1)
        await ask(here, 2)

    async with site(tmp_path) as here:
        await until(lambda: len(here.door.interactions) == 2, within_s=10)
        assert await _state_with(here, epoch=1)


async def test_an_event_that_is_too_large_for_the_daemon_goes_without_texts(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as here:
        here.door.refuse_if = lambda body: b"hello" in body
        await here.publish(live=V1)
        await ask(here, 2)

        await until(lambda: len(here.door.interactions) == 2, within_s=10)
        event = here.door.interactions[0]
        assert (event.texts, event.request, event.choices) == ("dropped", None, None)
        assert event.usage is not None


async def test_an_event_the_daemon_never_takes_does_not_hold_up_the_others(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as here:
        await here.publish(live=V1)
        here.door.refuse_if = lambda body: b"poison" in body
        async with here.client() as client:
            for user in ("ada", "poison", "bob"):
                await client.chat.completions.create(model="support", messages=ASK, user=user)

        await until(lambda: len(here.door.interactions) == 2, within_s=10)
        assert {event.user for event in here.door.interactions} == {"ada", "bob"}
        refused = here.settings.spool_dir / "refused.ndjson"
        await until(refused.exists, within_s=5)
        assert json.loads(refused.read_text())["user"] == "poison"


async def test_what_became_a_dead_letter_at_the_daemon_is_counted_and_told(
    tmp_path: Path, capfd: Any
) -> None:
    async with site(tmp_path) as here:
        await here.publish(live=V1)
        here.door.bury_if = lambda line: "erased" if b"mallory" in line else None
        async with here.client() as client:
            for user in ("ada", "mallory", "bob"):
                await client.chat.completions.create(model="support", messages=ASK, user=user)
        await until(lambda: len(here.door.interactions) == 2, within_s=10)
        await until(lambda: _state_with(here, spool_events=0), within_s=5)
        async with here.http(here.place.control) as http:
            text = (await http.get("/adaptd/metrics")).text

    assert 'adaptd_gateway_dead_letters_total{reason="erased"} 1.0' in text
    assert '"reasons": {"erased": 1}' in capfd.readouterr().err
    assert not (here.settings.spool_dir / "refused.ndjson").exists(), "the daemon keeps it"


async def test_what_nobody_takes_is_counted_and_not_as_shipped(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.publish(live=V1)
        here.door.refuse_if = lambda body: b"poison" in body
        async with here.client() as client:
            for user in ("ada", "poison"):
                await client.chat.completions.create(model="support", messages=ASK, user=user)
        await until(lambda: len(here.door.interactions) == 1, within_s=10)
        await until(lambda: _state_with(here, spool_events=0), within_s=5)
        async with here.http(here.place.control) as http:
            text = (await http.get("/adaptd/metrics")).text

    assert "adaptd_gateway_refused_total 1.0" in text
    assert "adaptd_gateway_shipped_total 1.0" in text


async def test_texts_beyond_the_queue_are_dropped_and_counted_but_no_row(tmp_path: Path) -> None:
    async with site(tmp_path, queue_bytes=10) as here:
        await here.publish(live=V1)
        await ask(here, 3)

        await until(lambda: len(here.door.interactions) == 3, within_s=10)
        assert {event.texts for event in here.door.interactions} == {"dropped"}
        assert all(event.usage and event.adapter == V1 for event in here.door.interactions)
        assert await _state_with(here, texts_dropped=3)


async def test_a_large_exchange_is_captured_without_texts(tmp_path: Path) -> None:
    async with site(tmp_path, max_event_bytes=2000) as here:
        await here.publish(live=V1)
        long: Any = [{"role": "user", "content": "x" * 2000}]
        async with here.client() as client:
            await client.chat.completions.create(model="support", messages=long)

        await until(lambda: len(here.door.interactions) == 1, within_s=10)
        assert here.door.interactions[0].texts == "dropped"


async def test_metrics_name_no_version_and_no_unknown_model(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        await here.publish(live=V1)
        await ask(here)
        async with here.http() as http:
            body = {"model": "made-up", "messages": ASK}
            await http.post("/v1/chat/completions", json=body)
        async with here.http(here.place.control) as http:
            text = (await http.get("/adaptd/metrics")).text

    assert 'adaptd_gateway_requests_total{model="support",status="ok"} 1.0' in text
    assert 'adaptd_gateway_requests_total{model="other",status="refused"} 1.0' in text
    assert "adaptd_gateway_lease_held 1.0" in text
    assert "made-up" not in text


async def test_prompts_and_answers_are_never_logged(tmp_path: Path, capfd: Any) -> None:
    async with site(tmp_path) as here:
        await here.publish(live=V1)
        for text in ("SECRET", "raise", "invalid"):
            messages: Any = [
                {"role": "system", "content": "SECRET"},
                {"role": "user", "content": text},
            ]
            async with here.client() as client:
                with contextlib.suppress(openai.APIError):
                    await client.chat.completions.create(model="support", messages=messages)

    ours = [line for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert ours
    assert not [line for line in ours if "SECRET" in line or here.place.token in line]


async def test_without_a_table_an_alias_is_a_503_and_captured(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        async with here.http() as http:
            body = {"model": "support", "messages": ASK}
            answer = await http.post("/v1/chat/completions", json=body)
            models = await http.get("/v1/models")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert models.status_code == 503

        await until(lambda: len(here.door.interactions) == 1, within_s=5)
        assert (here.door.interactions[0].model, here.door.interactions[0].status) == (
            "support",
            "error",
        )


async def test_a_table_is_refused_under_an_epoch_that_does_not_rise(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        first = await here.publish(epoch=5, live=V1)
        again = await here.publish(epoch=5, live=V1)  # the heartbeat
        assert first.epoch == again.epoch == 5
        for epoch, live in ((5, V2), (4, V1), (4, V2)):
            table = RouteTable(
                epoch=epoch, base=BASE, routes={"support": Route(alias="support", live=live)}
            )
            async with here.http(here.place.control) as http:
                answer = await http.put("/adaptd/routes", content=msgspec.json.encode(table))
                in_force = (await http.get("/adaptd/table")).json()
            assert answer.status_code == 409
            assert answer.json()["epoch"] == 5
            assert in_force["routes"]["support"]["live"] == V1


async def test_a_canary_loses_its_traffic_with_the_lease_and_live_does_not(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as here:
        canary = {"canary": V2, "canary_on": True, "weight": 1.0, "salt": "r", "rollout": "r"}
        await here.publish(live=V1, lease_s=0.3, **canary)
        await ask(here)
        await until(lambda: _state_with(here, lease_held=False), within_s=5)
        await ask(here)
        await here.publish(epoch=2, live=V1, lease_s=60, **canary)  # the daemon is back
        await ask(here)

        events = await until(lambda: len(here.door.interactions) == 3, within_s=10)
        events = here.door.interactions
        assert [event.arm for event in events] == ["canary", "live", "canary"]
        assert [event.weight for event in events] == [1.0, 0.0, 1.0]


async def test_a_gateway_that_starts_alone_serves_live_from_its_saved_table(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as here:
        canary = {"canary": V2, "canary_on": True, "weight": 1.0, "salt": "r", "rollout": "r"}
        await here.publish(epoch=7, live=V1, **canary)

    async with site(tmp_path) as here:
        await ask(here)
        await until(lambda: len(here.door.interactions) == 1, within_s=10)
        assert (here.door.interactions[0].arm, here.door.interactions[0].adapter) == ("live", V1)
        assert await _state_with(here, epoch=7, lease_held=False)


async def test_a_gateway_that_starts_alone_loads_live_and_last_good(tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    routes = {"support": Route(alias="support", live=V1, last_good=V2)}
    table = RouteTable(epoch=3, base=BASE, routes=routes, paths={V1: "/a/1", V2: "/a/2", "x": "/"})
    settings = place.settings()
    settings.table_path.write_bytes(msgspec.json.encode(table))

    server = OpenAIServer()
    async with serve(Gateway(server, settings)):
        await until(lambda: server.loaded == {V1: "/a/1", V2: "/a/2"}, within_s=5)


async def test_an_unusable_saved_table_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text("{")
    async with site(tmp_path) as here:
        assert await _state_with(here, epoch=0)
        await here.publish(live=V1)
        await ask(here)


async def test_nothing_accepted_is_lost_when_the_gateway_is_killed(tmp_path: Path) -> None:
    """Kill a reverse proxy in a process of its own right after its last answer."""
    place, server, door = Place.make(tmp_path), OpenAIServer({V1: "/a/1"}), EventsDoor(status=503)
    async with serve(server) as upstream, serve(door) as daemon:
        settings = place.settings(upstream_url=upstream, events_url=f"{daemon}/v1/events")
        table = RouteTable(epoch=1, base=BASE, routes={"support": Route(alias="support", live=V1)})
        settings.table_path.write_bytes(msgspec.json.encode(table))
        config = tmp_path / "gateway.json"
        write_settings(config, settings)
        answered = await _ask_and_kill(config, place, settings.spool_dir)

        door.status = 200
        async with serve(create(settings)):
            await until(lambda: len(door.interactions) >= len(answered), within_s=15)
        assert {event.id for event in door.interactions} == answered
        assert len(door.interactions) == len(answered)


async def _ask_and_kill(config: Path, place: Place, spool: Path) -> set[str]:
    """Ask a gateway in a process of its own, kill it, and return the ids it answered with."""
    line = ["-m", "uvicorn", "--factory", "adaptd.serving.proxy:create", "--port", "0"]
    environment = os.environ | {"ADAPTD_GATEWAY_CONFIG": str(config)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *line, cwd=ROOT, env=environment, stderr=subprocess.PIPE
    )
    try:
        here = Site(await _url_of(process), OpenAIServer(), EventsDoor(), place, place.settings())
        async with here.client() as client:
            answers = [
                await client.chat.completions.create(model="support", messages=ASK)
                for _ in range(5)
            ]
        answered = {answer.id for answer in answers}
        await until(lambda: _lines(spool) >= len(answered), within_s=5)
    finally:
        process.kill()
        await process.communicate()
    return answered


async def _url_of(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(LIMIT_S):
        async for line in process.stderr:
            if b"running on" in line:
                return line.decode().split("running on ")[1].split()[0]
    raise AssertionError("the gateway did not start")


def _lines(spool: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in spool.glob("[0-9]*.ndjson"))


async def _state_with(here: Site, **wanted: Any) -> dict[str, Any] | None:
    """Return the gateway's state where it is as wanted."""
    async with httpx.AsyncClient() as http:
        headers = {"Authorization": f"Bearer {here.place.control}"}
        state = (await http.get(f"{here.url}/adaptd/state", headers=headers)).json()
    return state if all(state[name] == value for name, value in wanted.items()) else None


async def test_a_server_does_not_start_without_the_gateways_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without settings it would have to let everybody through, or nobody."""
    monkeypatch.delenv("ADAPTD_GATEWAY_CONFIG", raising=False)
    told: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        told.append(message)

    with pytest.raises(SettingsError):
        await Gateway(OpenAIServer())({"type": "lifespan"}, receive, send)
    (failed,) = told
    assert failed["type"] == "lifespan.startup.failed"
    assert "ADAPTD_GATEWAY_CONFIG" in failed["message"]
