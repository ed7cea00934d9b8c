"""Reload the live and last-good versions of a server that starts while the daemon is away."""

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec
import structlog

from adaptd.daemon.wire.routes import RouteTable
from adaptd.serving.gateway.asgi import App, Message, Scope
from adaptd.serving.gateway.route_book import RouteBook

LOAD_LIMIT_S = 120.0
FIRST_RETRY_S = 1.0
LAST_RETRY_S = 15.0


class AdapterReloader:
    """Loads the versions of the saved table, until all are there or the daemon publishes.

    Until then a request for such a version finds it missing and is answered 503.
    """

    def __init__(
        self,
        app: App,
        book: RouteBook,
        *,
        scope: Scope,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        """`scope` is one the server made, and the pattern of ours: it holds the server's state."""
        self._app = app
        self._book = book
        self._scope = scope
        self._log = log

    async def run(self) -> None:
        wanted = dict(versions_to_reload(self._book.table)) if self._book.table else {}
        pause_s = FIRST_RETRY_S
        while wanted and not self._book.heard:
            for name, path in list(wanted.items()):
                if await self._load_version(name, path):
                    del wanted[name]
            if wanted:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LAST_RETRY_S)

    async def _load_version(self, name: str, path: str) -> bool:
        """Load one version. True where the server has it now."""
        body = {"lora_name": name, "lora_path": path}
        try:
            async with asyncio.timeout(LOAD_LIMIT_S):
                status, answer = await call(self._app, self._scope, "/v1/load_lora_adapter", body)
        except Exception as error:  # noqa: BLE001 - whatever the server raised, it is tried again
            status, answer = 500, type(error).__name__.encode()
        loaded = status == 200 or (status == 400 and b"already" in answer)
        if not loaded:
            self._log.warning("version_reload_failed", adapter=name, status=status)
        return loaded


def versions_to_reload(table: RouteTable) -> Iterable[tuple[str, str]]:
    """Yield names and paths: live first, then last-good.

    No canary: the daemon has to renew its lease before it may answer.
    """
    live = [route.live for route in table.routes.values()]
    last_good = [route.last_good for route in table.routes.values()]
    for name in dict.fromkeys(live + last_good):
        if name is not None and name in table.paths:
            yield name, table.paths[name]


async def call(app: App, scope: Scope, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
    """POST JSON to an ASGI app in this process and return its answer."""
    content = msgspec.json.encode(body)
    requests = [{"type": "http.request", "body": content, "more_body": False}]
    status = 500
    parts: list[bytes] = []

    async def receive() -> Message:
        if requests:
            return requests.pop()
        await asyncio.Event().wait()  # nobody disconnects; the caller's limit ends the wait
        raise AssertionError("unreachable")

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        parts.append(message.get("body", b""))

    headers = [
        (b"host", b"localhost"),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
    ]
    inner = {name: scope[name] for name in ("app", "state", "asgi") if name in scope} | {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": None,
        "server": None,
    }
    await app(inner, receive, send)
    return status, b"".join(parts)
