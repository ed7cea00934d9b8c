"""Routes below /adaptd/, by which the daemon controls a gateway: control token only."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from adaptd.daemon.wire.errors import RefusedError
from adaptd.daemon.wire.routes import GatewayState, RouteTable
from adaptd.daemon.wire.texts import NOT_DECODED
from adaptd.serving.gateway.asgi import Receive, Scope, Send, read_body, send_body, send_json
from adaptd.serving.gateway.metrics import CONTENT_TYPE
from adaptd.serving.gateway.refusals import bad_request, no_such_route
from adaptd.serving.gateway.route_book import RouteBook

MAX_TABLE_BYTES = 8 << 20
TABLE_LIMIT_S = 10.0


class ControlService:
    """Serves state, table and metrics, and puts published tables in force."""

    def __init__(
        self,
        book: RouteBook,
        *,
        state: Callable[[], GatewayState],
        metrics: Callable[[], bytes],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._book = book
        self._state = state
        self._metrics = metrics
        self._log = log
        self._saving = asyncio.Lock()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            RefusalError: there is no such route, or the table cannot be read.
        """
        match scope["method"], scope["path"]:
            case "GET", "/adaptd/state":
                state = msgspec.structs.replace(self._state(), dtype=_find_dtype(scope))
                await send_json(send, 200, state)
            case "GET", "/adaptd/table":
                await send_json(send, 200, self._book.table)
            case "GET", "/adaptd/metrics":
                await send_body(send, 200, self._metrics(), content_type=CONTENT_TYPE)
            case "PUT", "/adaptd/routes":
                await self._put_routes(receive, send)
            case method, path:
                raise no_such_route(method, path)

    async def _put_routes(self, receive: Receive, send: Send) -> None:
        """Put a table in force, write it to disk, answer: a rollback must not wait for the disk."""
        table = await _read_table(receive)
        before = self._book.epoch
        try:
            changed = self._book.apply(table)
        except RefusedError as refusal:
            self._log.warning("table_refused", problem=str(refusal))
            await send_json(send, 409, self._state())
            return
        if changed:
            self._log.info("table_applied", epoch=table.epoch, before=before)
        async with self._saving:
            if not self._book.saved:
                await self._save_table()
        await send_json(send, 200, self._state())

    async def _save_table(self) -> None:
        try:
            await asyncio.to_thread(self._book.save)
        except OSError as error:  # the state says so, and the next heartbeat tries again
            self._log.error("table_save_failed", problem=str(error))


def _find_dtype(scope: Scope) -> str | None:
    """Find the format that vLLM computes in; None where this is not vLLM's process."""
    state: Any = getattr(scope.get("app"), "state", None)
    config: Any = getattr(getattr(state, "vllm_config", None), "model_config", None)
    dtype = getattr(config, "dtype", None)
    return None if dtype is None else str(dtype).removeprefix("torch.")


async def _read_table(receive: Receive) -> RouteTable:
    body = await read_body(receive, limit_bytes=MAX_TABLE_BYTES, limit_s=TABLE_LIMIT_S)
    try:
        return msgspec.json.decode(body, type=RouteTable)
    except NOT_DECODED as error:
        raise bad_request(f"This is no route table: {error}") from error
