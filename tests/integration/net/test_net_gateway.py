"""A gateway that starts over files of an earlier release: it ships what waits, and answers."""

from pathlib import Path
from typing import Any

import httpx
import msgspec

from adaptd.daemon.store.database.database import Database
from adaptd.daemon.wire.events import Interaction
from adaptd.serving.capture.spool import Spool
from adaptd.serving.gateway.app import Gateway
from adaptd.serving.gateway.settings import load_settings
from tests.net.artifacts import recorded
from tests.net.gateway import alone, gateway_file_of
from tests.support.gateway_world import EventsDoor, OpenAIServer, said, serve
from tests.support.ingesting import Ingesting
from tests.support.waiting import until


def waiting() -> list[Interaction]:
    return [msgspec.json.decode(line, type=Interaction) for line in recorded("files")["spool"]]


def moved(home: Path, **changes: Any) -> Any:
    """The settings as they were written, for this copy of the home."""
    settings = load_settings(gateway_file_of(home))
    paths = {
        "tokens_path": home / "tokens.json",
        "control_token_path": home / "control.token",
        "secret_path": home / "secret.key",
        "table_path": home / "gateway" / "routes.json",
        "spool_dir": home / "gateway" / "spool",
    }
    return alone(settings, **paths, **changes)


async def test_every_waiting_line_is_shipped_in_order(installation: Path) -> None:
    home, door = installation / "home", EventsDoor()
    async with serve(door) as url:
        settings = moved(home, events_url=f"{url}/v1/events")
        async with serve(Gateway(OpenAIServer(), settings)):
            await until(lambda: len(door.interactions) >= len(waiting()), within_s=10)

    assert door.interactions == waiting()
    assert door.tokens == {(home / "control.token").read_text().strip()}
    spool = Spool(settings.spool_dir, segment_bytes=1 << 20)
    assert spool.depth == 0
    spool.close()


async def test_what_waited_can_be_stored() -> None:
    database = Database.open(":memory:")
    try:
        lines = [line.encode() for line in recorded("files")["spool"]]
        written = await Ingesting(database).add(*lines)
        assert (written.interactions, written.dead_letters) == (len(lines), 0)
    finally:
        database.close()


async def test_requests_follow_the_saved_table_until_the_daemon_speaks(installation: Path) -> None:
    table = recorded("store")["rollouts"]["table"]
    live = table["routes"]["support"]["live"]
    (shop,) = [row["token"] for row in recorded("files")["tokens"] if row["tenant"] == "shop"]
    server = OpenAIServer(dict(table["paths"]))
    async with serve(Gateway(server, moved(installation / "home"))) as url:
        headers = {"Authorization": f"Bearer {shop}"}
        async with httpx.AsyncClient(base_url=url, headers=headers) as http:
            for number in range(20):
                asked = {"model": "support", "messages": said("hi"), "user": f"u{number}"}
                answer = await http.post("/v1/chat/completions", json=asked)
                assert answer.status_code == 200, answer.text

    chats = [seen for seen in server.seen if "chat" in seen.path]
    assert {seen.body["model"] for seen in chats} == {live}
