"""The demo where there is no Java: one line, and events through the HTTP door."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from adaptd.daemon.demo.world import DemoWorld
from tests.support.broker import ROOT
from tests.support.event_samples import an_interaction
from tests.support.waiting import until


@pytest.mark.usefixtures("base")
async def test_without_java_events_go_through_the_daemons_door_and_to_no_broker_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", str(tmp_path))  # neither Java nor Maven
    monkeypatch.setenv("ADAPTD_KAFKA_BOOTSTRAP", "127.0.0.1:1")  # an operator's own
    monkeypatch.setenv("ADAPTD_UPSTREAM__MANAGE", "false")  # no vLLM here
    told: list[str] = []
    world = DemoWorld(tmp_path / "demo")
    try:
        world.make_base(told.append)
        world.start_broker(told.append)
        assert told == [
            "Java 17 is not installed: going on without a broker, events go through POST /v1/events"
        ]
        world.start_daemon()
        assert (await status(world))["ingest"]["source"] == "http"
        gateway = json.loads((world.home / "gateway.json").read_text())
        assert gateway["kafka_bootstrap"] is None
        assert gateway["events_url"] == f"{world.url}/v1/events"

        token = (world.home / "control.token").read_text().strip()
        assert await send(gateway["events_url"], token) == "stored"
        await world.kill_daemon()
        world.start_daemon()
        assert (await status(world))["events"]["interactions"] == 1
        assert await send(gateway["events_url"], token) == "duplicate"
        world.kill()  # as a second Ctrl-C does
        await until(world.daemon_died, within_s=5)
    finally:
        await world.close()
        world.end(in_a_hurry=lambda: True)


async def status(world: DemoWorld) -> dict[str, Any]:
    """What the daemon says of itself, once it answers."""
    await until((world.home / "gateway.json").exists, within_s=60)
    return await until(lambda: world.get("/v1/status"), within_s=60)


async def send(url: str, token: str) -> str:
    """What became of an event, sent as the gateway sends it."""
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as http:
        answer = await http.post(url, json=an_interaction(id="once"))
    return answer.raise_for_status().json()["results"][0]["result"]
