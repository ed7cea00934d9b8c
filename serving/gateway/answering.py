"""The two routes that answer, chat and completions: one request in, one exchange recorded."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

import structlog

from adaptd.daemon.wire.signing import new_response_id
from adaptd.daemon.wire.tokens import Principal
from adaptd.serving.capture.exchange import Exchange, Fields, RequestKind
from adaptd.serving.gateway.allowlist import REQUEST_HEADERS
from adaptd.serving.gateway.answer import MaskedAnswer, identity_headers
from adaptd.serving.gateway.asgi import (
    App,
    DisconnectedError,
    Message,
    Receive,
    Scope,
    Send,
    read_body,
    send_refusal,
    with_headers,
)
from adaptd.serving.gateway.refusals import (
    RefusalError,
    model_not_ready,
    not_permitted,
    server_failed,
)
from adaptd.serving.gateway.request import note_body, note_headers
from adaptd.serving.gateway.rewrite import Mask, asks_for_usage, is_true, request_for
from adaptd.serving.gateway.route_book import RouteBook, live_instead, unit_of
from adaptd.serving.gateway.settings import GatewaySettings


class AnsweringService:
    """Routes a client's request to a version and masks the answer.

    A request takes these steps:

    1. Note the headers, read the body, check its fields (`note_body`).
    2. Find the alias's route and the request's unit; assign the unit to an arm (`RouteBook`).
    3. Rewrite the request for the version chosen and hand it to vLLM; where the host lacks the
       version, do so again with live.
    4. Mask the answer on its way back (`MaskedAnswer`).
    5. Hand the exchange to `record`: exactly once, however the request ended.

    `record` must not block.
    """

    def __init__(
        self,
        app: App,
        settings: GatewaySettings,
        book: RouteBook,
        *,
        ids_key: bytes,
        record: Callable[[Exchange], None],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._app = app
        self._settings = settings
        self._book = book
        self._ids_key = ids_key
        self._record = record
        self._log = log
        self.in_flight: Counter[str] = Counter()  # by the name vLLM knows

    async def serve(
        self, scope: Scope, receive: Receive, send: Send, *, principal: Principal, kind: RequestKind
    ) -> None:
        """Answer one request. An error that vLLM raises is answered 500 and raised again."""
        exchange = Exchange(
            id=new_response_id(self._ids_key, principal.tenant),
            kind=kind,
            tenant=principal.tenant,
            gateway=self._settings.gateway,
        )
        noted = _note_disconnects(send, exchange)
        try:
            await self._answer_request(exchange, scope, receive, noted, principal=principal)
        except RefusalError as refusal:
            exchange.status_code = refusal.status
            exchange.complete = not exchange.disconnected
            await send_refusal(noted, refusal, headers=identity_headers(exchange.id))
        except DisconnectedError:
            exchange.disconnected = True
        except asyncio.CancelledError:  # the server is stopping; the client did not leave
            exchange.failed = not exchange.complete
            raise
        finally:
            exchange.ended = exchange.ended or time.monotonic()
            self._record(exchange)

    async def _answer_request(
        self,
        exchange: Exchange,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        principal: Principal,
    ) -> None:
        note_headers(exchange, scope)
        if not principal.may("chat"):
            raise not_permitted("This API key may not ask models.")
        settings = self._settings
        body = await read_body(
            receive, limit_bytes=settings.max_body_bytes, limit_s=settings.body_limit_s
        )
        is_chat = exchange.kind is RequestKind.CHAT
        allowed = settings.chat_fields if is_chat else settings.completion_fields
        fields = note_body(exchange, body, allowed=allowed)
        self._assign_arm(exchange, principal)
        await self._forward_request(exchange, fields, scope, receive, send)

    def _assign_arm(self, exchange: Exchange, principal: Principal) -> None:
        route = self._book.find(exchange.model, principal)
        exchange.route = route
        exchange.unit, exchange.unit_kind = unit_of(
            route,
            tenant=principal.tenant,
            conversation=exchange.conversation,
            user=exchange.user,
            request_id=exchange.id,
        )
        exchange.choice = self._book.assign(route, exchange.unit)

    async def _forward_request(
        self, exchange: Exchange, fields: Fields, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Ask the version that was chosen; where the host does not have it, live.

        A host that has just started lacks versions until the daemon has loaded them. Such a unit is
        logged as live, because live answered it.
        """
        route, choice = exchange.route, exchange.choice
        assert route is not None
        assert choice is not None
        attempts = [choice] if choice.adapter == route.live else [choice, live_instead(route)]
        for attempt in attempts:
            exchange.choice = attempt
            if await self._ask_version(exchange, fields, scope, receive, send):
                if exchange.status_code == HTTPStatus.OK:
                    self._book.note_answered(attempt)
                return
            self._book.note_missing(attempt)
            self._log.warning("version_missing", model=exchange.model, adapter=attempt.adapter)
        raise model_not_ready(exchange.model)

    async def _ask_version(
        self, exchange: Exchange, fields: Fields, scope: Scope, receive: Receive, send: Send
    ) -> bool:
        """Ask one version. False where the host does not have it: then nothing was sent."""
        assert exchange.choice is not None
        served = exchange.choice.adapter or self._book.base
        mask = Mask(
            alias=exchange.model,
            response_id=exchange.id,
            base=self._book.base,
            hide_usage=is_true(fields, "stream") and not asks_for_usage(fields),
        )
        answer = MaskedAnswer(send, exchange, mask)
        body = request_for(fields, served)
        with self._count_in_flight(served):
            try:
                await self._app(
                    _inner_scope(scope, exchange.id, len(body)),
                    _Replay(exchange, body, receive),
                    answer,
                )
            except Exception as error:
                if exchange.disconnected:
                    raise DisconnectedError from error
                await self._answer_failure(exchange, answer, send, error)
                raise
        return not answer.missing

    async def _answer_failure(
        self, exchange: Exchange, answer: MaskedAnswer, send: Send, error: Exception
    ) -> None:
        exchange.failed = True
        self._log.error("upstream_raised", interaction=exchange.id, error=type(error).__name__)
        # Answered here, before a middleware around us does: its message could name the version.
        if not answer.started:
            exchange.status_code = 500
            await send_refusal(send, server_failed(), headers=identity_headers(exchange.id))

    @contextmanager
    def _count_in_flight(self, served: str) -> Iterator[None]:
        self.in_flight[served] += 1
        try:
            yield
        finally:
            self.in_flight[served] -= 1
            if not self.in_flight[served]:
                del self.in_flight[served]


def _note_disconnects(send: Send, exchange: Exchange) -> Send:
    async def send_and_note(message: Message) -> None:
        try:
            await send(message)
        except OSError:  # newer ASGI servers say so that the client left
            exchange.disconnected = True
            raise

    return send_and_note


class _Replay:
    """An ASGI `receive` that gives vLLM the body once, then the server's own messages.

    vLLM waits in the latter for a disconnect.
    """

    def __init__(self, exchange: Exchange, body: bytes, receive: Receive) -> None:
        self._exchange = exchange
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._exchange.complete:
            self._exchange.disconnected = True
        return message


def _inner_scope(scope: Scope, response_id: str, body_bytes: int) -> Scope:
    """Build the request's scope for vLLM: no token, no header that vLLM obeys, our request id."""
    ours = [
        (b"content-length", str(body_bytes).encode()),
        (b"x-request-id", response_id.encode()),
    ]
    headers = with_headers(scope["headers"], REQUEST_HEADERS, ours)
    return {**scope, "headers": headers, "query_string": b"", "extensions": {}}
