"""Publishes the route table to every gateway over HTTP, with the control token."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec

from adaptd.daemon.wire.errors import EpochError, HostError
from adaptd.daemon.wire.files import read_regular
from adaptd.daemon.wire.routes import GatewayState, RouteTable
from adaptd.daemon.wire.texts import NOT_DECODED

LIMIT_S = 2.0  # a slower gateway is reported; the next heartbeat tries again

T = TypeVar("T")


class HttpPublisher:
    """Implements `RoutePublisher`. Connections stay open: a rollback costs one round trip.

    `urls` are the gateways' roots, e.g. http://127.0.0.1:8000; the token is read from its file at
    each call, so a new one needs no restart.
    """

    def __init__(self, urls: Sequence[str], *, token_path: Path, limit_s: float = LIMIT_S) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._token_path = token_path
        self._client = httpx.AsyncClient(timeout=limit_s, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def publish(self, table: RouteTable) -> Sequence[GatewayState]:
        body = msgspec.json.encode(table)

        async def put(url: str) -> GatewayState:
            return await self._ask_state("PUT", f"{url}/adaptd/routes", body)

        return await self._ask_all(put)

    async def states(self) -> Sequence[GatewayState]:
        async def get(url: str) -> GatewayState:
            return await self._ask_state("GET", f"{url}/adaptd/state", None)

        return await self._ask_all(get)

    async def tables(self) -> Sequence[RouteTable]:
        async def get(url: str) -> RouteTable | None:
            where = f"{url}/adaptd/table"
            _, content = await self._send_request("GET", where, None)
            return _decode_answer(where, content, RouteTable | None)

        return [table for table in await self._ask_all(get) if table is not None]

    async def _ask_all(self, call: Callable[[str], Awaitable[T]]) -> list[T]:
        """Ask all gateways at once; raise the most telling error, after all have answered."""
        answers = await asyncio.gather(*map(call, self._urls), return_exceptions=True)
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        if errors:
            raise max(errors, key=_rank_error)
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def _ask_state(self, method: str, url: str, body: bytes | None) -> GatewayState:
        status, content = await self._send_request(method, url, body)
        state = _decode_answer(url, content, GatewayState)
        if status == httpx.codes.CONFLICT:
            raise EpochError(url, state.epoch)
        return state

    async def _send_request(self, method: str, url: str, body: bytes | None) -> tuple[int, bytes]:
        try:
            token = (
                read_regular(self._token_path).decode().strip()
            )  # a few bytes, in the page cache
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            answer = await self._client.request(method, url, content=body, headers=headers)
            if answer.status_code != httpx.codes.CONFLICT:
                answer.raise_for_status()
        except (OSError, UnicodeError, httpx.HTTPError) as error:
            raise _no_answer(url, error) from error
        return answer.status_code, answer.content


def _decode_answer(url: str, content: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(content, type=kind)
    except NOT_DECODED as error:
        raise _no_answer(url, error) from error


def _no_answer(url: str, error: Exception) -> HostError:
    remedy = "See that the server runs with the gateway and this control token"
    return HostError(url, f"the gateway does not answer ({error!r})", remedy)


def _rank_error(error: BaseException) -> tuple[int, int]:
    # A bug before a newer epoch (the highest) before a gateway that is away.
    if isinstance(error, EpochError):
        return 1, error.epoch
    return (0, 0) if isinstance(error, HostError) else (2, 0)
