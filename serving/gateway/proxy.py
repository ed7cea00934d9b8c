"""The gateway as a process of its own, in front of a server that somebody else starts.

`adaptd gateway run --config gateway.json`, or
`ADAPTD_GATEWAY_CONFIG=gateway.json uvicorn --factory adaptd.serving.proxy:create`
"""

import asyncio
from pathlib import Path

import httpx
import structlog

from adaptd.daemon.wire.errors import SettingsError
from adaptd.daemon.wire.files import read_regular
from adaptd.serving.gateway.app import Gateway
from adaptd.serving.gateway.asgi import Message, Receive, Scope, Send, read_body, send_refusal
from adaptd.serving.gateway.log import make_log
from adaptd.serving.gateway.refusals import RefusalError
from adaptd.serving.gateway.settings import GatewaySettings, load_settings

# Headers of the connection, not of the message; httpx and the server set their own.
_HOP_HEADERS = frozenset(
    {b"connection", b"content-length", b"host", b"keep-alive", b"te", b"transfer-encoding"}
)


def create(settings: GatewaySettings | None = None) -> Gateway:
    """Make the ASGI app of a reverse proxy. Without `settings` it reads ADAPTD_GATEWAY_CONFIG.

    Raises:
        SettingsError: they name no upstream, or cannot be used.
    """
    settings = settings or load_settings()
    if not settings.upstream_url:
        raise SettingsError(
            "upstream_url", "the gateway has no server behind it", "Give the URL of one"
        )
    return Gateway(UpstreamProxy(settings.upstream_url, settings), settings)


class UpstreamProxy:
    """An ASGI app that forwards every request, bodies in and out as they come.

    A client that leaves closes the connection, which stops the generation. An upstream that is away
    is a 502, one that is too slow a 504.
    """

    def __init__(self, url: str, settings: GatewaySettings) -> None:
        self._settings = settings
        self._log: structlog.typing.FilteringBoundLogger = make_log(settings.gateway)
        limit = httpx.Timeout(settings.upstream_limit_s, connect=5)
        # No limit on connections: the upstream decides how many requests run at once.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx.AsyncClient(
            base_url=url, timeout=limit, limits=limits, trust_env=False
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._follow_lifespan(receive, send)
        elif scope["type"] == "http":
            await self._forward_request(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _follow_lifespan(self, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await self._client.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _forward_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self._settings
        body = await read_body(
            receive, limit_bytes=settings.max_body_bytes, limit_s=settings.body_limit_s
        )
        answering = asyncio.create_task(self._stream_answer(scope, body, send))
        leaving = asyncio.create_task(_wait_for_disconnect(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not answering.done():
                answering.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)
        if not answering.cancelled():
            answering.result()

    async def _stream_answer(self, scope: Scope, body: bytes, send: Send) -> None:
        started = False
        query = scope.get("query_string", b"").decode("latin-1")
        path = f"{scope['path']}?{query}" if query else scope["path"]
        try:
            async with self._client.stream(
                scope["method"], path, content=body, headers=self._make_headers(scope)
            ) as answer:
                headers = [
                    (name.lower(), value)
                    for name, value in answer.headers.raw
                    if name.lower() not in _HOP_HEADERS
                ]
                started = True
                status = answer.status_code
                await send({"type": "http.response.start", "status": status, "headers": headers})
                async for part in answer.aiter_raw():
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (httpx.HTTPError, SettingsError) as error:
            self._log.error("upstream_failed", error=type(error).__name__)
            if started:
                raise
            await send_refusal(send, _refuse_for(error))

    def _make_headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Copy all headers but hops and the caller's token; add the upstream's own key."""
        drop = _HOP_HEADERS | {b"authorization", b"accept-encoding"}
        headers = [(name, value) for name, value in scope["headers"] if name not in drop]
        if (key_path := self._settings.upstream_key_path) is not None:
            headers.append((b"authorization", b"Bearer " + _read_key(key_path)))
        return [*headers, (b"accept-encoding", b"identity")]  # the gateway reads the answer


async def _wait_for_disconnect(receive: Receive) -> Message:
    while (message := await receive())["type"] != "http.disconnect":
        pass
    return message


def _read_key(path: Path) -> bytes:
    try:
        return read_regular(path).strip()
    except OSError as error:
        problem = f"the upstream's key cannot be read ({error.strerror})"
        raise SettingsError(str(path), problem, "Name a plain file with it") from error


def _refuse_for(error: httpx.HTTPError | SettingsError) -> RefusalError:
    if isinstance(error, SettingsError):
        return RefusalError(
            502, "The gateway has no key for the model server.", kind="server_error"
        )
    if isinstance(error, httpx.TimeoutException):
        return RefusalError(504, "The model server did not answer in time.", kind="timeout_error")
    return RefusalError(502, "The model server is away.", kind="server_error")
