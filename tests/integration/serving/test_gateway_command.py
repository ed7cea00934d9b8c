"""`adaptd gateway run`: the reverse proxy in a process of its own, without the daemon."""

import asyncio
import contextlib
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from adaptd.daemon.wire.routes import Route, RouteTable
from adaptd.serving.gateway.settings import GatewaySettings, write_settings
from tests.support.broker import ROOT
from tests.support.gateway_world import BASE, V1, EventsDoor, OpenAIServer, Place, Site, serve
from tests.support.missing_packages import command_with_extras, run_with_extras
from tests.support.waiting import LIMIT_S, until

ASK: Any = [{"role": "user", "content": "hello there"}]


@contextlib.asynccontextmanager
async def running_gateway(
    config: Path, *options: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The process and its URL. What still runs at the end is killed."""
    line = [*command_with_extras("gateway"), "gateway", "run", "--config", str(config), *options]
    process = await asyncio.create_subprocess_exec(*line, cwd=ROOT, stderr=subprocess.PIPE)
    try:
        yield process, await _url_of(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def _url_of(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    lines = []
    async with asyncio.timeout(LIMIT_S):
        async for line in process.stderr:
            lines.append(line.decode())
            if b"running on" in line:
                return lines[-1].split("running on ")[1].split()[0]
    raise AssertionError("".join(lines))


def save_settings(place: Place, settings: GatewaySettings) -> Path:
    """Write the settings, and a route table as a daemon would have left it."""
    table = RouteTable(epoch=1, base=BASE, routes={"support": Route(alias="support", live=V1)})
    settings.table_path.write_bytes(msgspec.json.encode(table))
    config = place.home / "gateway.json"
    write_settings(config, settings)
    return config


async def test_it_serves_with_the_extra_gateway_alone_until_sigterm(tmp_path: Path) -> None:
    place, server, door = Place.make(tmp_path), OpenAIServer({V1: "/a/1"}), EventsDoor()
    async with serve(server) as upstream, serve(door) as daemon:
        settings = place.settings(upstream_url=upstream, events_url=f"{daemon}/v1/events")
        config = save_settings(place, settings)
        async with running_gateway(config, "--port", "0") as (process, url):
            here = Site(url, server, door, place, settings)
            async with here.client() as client:
                answer = await client.chat.completions.create(model="support", messages=ASK)
            assert url.startswith("http://127.0.0.1:")
            assert answer.model == "support"
            await until(lambda: len(door.interactions) == 1, within_s=10)

            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), LIMIT_S) in (-signal.SIGTERM, 143)


def test_settings_without_an_upstream_are_misuse(tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    config = save_settings(place, place.settings())

    code, said = run_with_extras("gateway", words=["gateway", "run", "--config", str(config)])

    assert (code, said.count("\n")) == (2, 1)
    assert "no server behind it" in said


def test_settings_that_are_missing_are_misuse(tmp_path: Path) -> None:
    words = ["gateway", "run"]
    missing = run_with_extras("gateway", words=[*words, "--config", str(tmp_path / "none.json")])
    unnamed = run_with_extras("gateway", words=words)

    assert (missing[0], unnamed[0]) == (2, 2)
    assert "none.json" in missing[1]
    assert "ADAPTD_GATEWAY_CONFIG" in unnamed[1]


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    config = save_settings(place, place.settings(upstream_url="http://127.0.0.1:9"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = ["gateway", "run", "--config", str(config), "--port", port]
        code, said = run_with_extras("gateway", words=words)

    assert code == 1
    assert "address already in use" in said
