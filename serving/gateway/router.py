"""Build the parts of a running gateway and route each request to one of them: deny by default."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from adaptd.daemon.wire.routes import GatewayState, ThreadState
from adaptd.daemon.wire.signing import derive, load_secret
from adaptd.daemon.wire.texts import NOT_DECODED
from adaptd.daemon.wire.tokens import Principal, TokenBook
from adaptd.serving.capture.delivery import Delivery, HttpDelivery, KafkaDelivery, NoDelivery
from adaptd.serving.capture.exchange import Exchange
from adaptd.serving.capture.recorder import InteractionRecorder
from adaptd.serving.capture.shipper import SpoolShipper
from adaptd.serving.capture.spool import Spool
from adaptd.serving.gateway.allowlist import ANSWERING, FEEDBACK, HEALTH, MODELS
from adaptd.serving.gateway.answering import AnsweringService
from adaptd.serving.gateway.asgi import (
    App,
    Receive,
    Scope,
    Send,
    bearer_token,
    read_body,
    send_json,
    send_refusal,
)
from adaptd.serving.gateway.control import ControlService
from adaptd.serving.gateway.feedback import FeedbackService
from adaptd.serving.gateway.free_slots import UNLOAD, unload
from adaptd.serving.gateway.log import make_log
from adaptd.serving.gateway.metrics import GatewayMetrics
from adaptd.serving.gateway.refusals import RefusalError, no_such_route, no_token, not_ready
from adaptd.serving.gateway.route_book import RouteBook
from adaptd.serving.gateway.settings import GatewaySettings

SHIP_LIMIT_S = 10.0  # for a batch; one that takes longer stays in the spool and is sent again


class GatewayRouter:
    """One running gateway. Starts once, stops once.

    The constructor reads the secret and the tokens; `start` reads the last table.
    """

    def __init__(self, app: App, settings: GatewaySettings) -> None:
        self._app = app
        self._settings = settings
        self.log = make_log(settings.gateway)
        secret = load_secret(settings.secret_path)
        self._signing_key = derive(secret, "events")
        ids_key = derive(secret, "ids")
        self._tokens = TokenBook(settings.tokens_path)
        self.book = RouteBook(settings.table_path)
        self._metrics = GatewayMetrics()
        self._spool: Spool | None = None
        self._shipper: SpoolShipper | None = None
        self._recorder = InteractionRecorder(settings, on_spool=self._start_shipper, log=self.log)
        self._answering = AnsweringService(
            app, settings, self.book, ids_key=ids_key, record=self._record_exchange, log=self.log
        )
        self._feedback = FeedbackService(
            lambda: self._make_delivery(settings.feedback_topic, settings.feedback_limit_s),
            ids_key=ids_key,
            waiting=settings.feedback_waiting,
            log=self.log,
        )
        self._control = ControlService(
            self.book, state=self.state, metrics=self._render_metrics, log=self.log
        )

    def start(self) -> None:
        """Load the saved table and start the threads. An unusable table is logged, no error."""
        try:
            self.book.load()
        except (OSError, *NOT_DECODED) as error:
            self.log.error("saved_table_unusable", problem=str(error))
        self._recorder.start()
        self.log.info("gateway_started", epoch=self.book.epoch)

    async def stop(self) -> None:
        """Write what waits to disk, send what can be sent within `stop_grace_s`, and close."""
        await asyncio.to_thread(self._stop_threads)
        self.log.info("gateway_stopped", spool_events=self.state().spool_events)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request or websocket.

        Without a token only /health passes. The control token reaches /adaptd/ and all of vLLM's
        routes, untouched and uncaptured; any other token reaches the routes of the allowlist.
        """
        token = bearer_token(scope)
        principal = self._tokens.lookup(token) if token else None
        is_control = principal is not None and principal.may("control")
        if _method_and_path(scope) == HEALTH or (is_control and not _is_own_route(scope)):
            await self._pass_on(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            try:
                await self._serve_http(scope, receive, send, principal)
            except RefusalError as refusal:
                await send_refusal(send, refusal)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        if _method_and_path(scope) == UNLOAD:
            await unload(self._app, scope, receive, send, log=self.log)
        else:
            await self._app(scope, receive, send)

    async def _serve_http(
        self, scope: Scope, receive: Receive, send: Send, principal: Principal | None
    ) -> None:
        asked = _method_and_path(scope)
        if principal and principal.may("control") and scope["path"].startswith("/adaptd/"):
            await self._control.serve(scope, receive, send)
            return
        if asked not in (*ANSWERING, FEEDBACK, MODELS):
            raise no_such_route(*asked)
        if principal is None:
            raise no_token()
        if kind := ANSWERING.get(asked):
            await self._answering.serve(scope, receive, send, principal=principal, kind=kind)
        elif asked == FEEDBACK:
            await self._take_feedback(receive, send, principal)
        else:
            await send_json(send, 200, self._list_models(principal))

    async def _take_feedback(self, receive: Receive, send: Send, principal: Principal) -> None:
        settings = self._settings
        body = await read_body(
            receive, limit_bytes=settings.max_body_bytes, limit_s=settings.body_limit_s
        )
        accepted = await self._feedback.accept(body, principal)
        await send_json(send, 200, {"accepted": accepted})

    def _list_models(self, principal: Principal) -> dict[str, Any]:
        """List aliases, never versions, in OpenAI's shape."""
        if self.book.table is None:
            raise not_ready("The routes are not known yet. Try again in a moment.")
        seen = [alias for alias in sorted(self.book.table.routes) if principal.sees(alias)]
        data = [
            {"id": alias, "object": "model", "created": 0, "owned_by": "adaptd"} for alias in seen
        ]
        return {"object": "list", "data": data}

    def state(self) -> GatewayState:
        spooled = self._spool.depth if self._spool else 0
        return GatewayState(
            gateway=self._settings.gateway,
            epoch=self.book.epoch,
            in_flight=dict(self._answering.in_flight),
            spool_events=spooled + self._recorder.waiting,
            texts_dropped=self._recorder.texts_dropped,
            rows_lost=self._recorder.rows_lost,
            lease_held=self.book.lease_held(),
            table_saved=self.book.saved,
            threads=self._list_threads(),
        )

    def _list_threads(self) -> tuple[ThreadState, ...]:
        shipper = (self._shipper.state(),) if self._shipper else ()
        return (self._recorder.state(), *shipper)

    def _render_metrics(self) -> bytes:
        shipper = self._shipper
        return self._metrics.render(
            self.state(),
            shipped=shipper.shipped if shipper else 0,
            refused=shipper.refused if shipper else 0,
            publish_failures=shipper.failures if shipper else 0,
        )

    def _record_exchange(self, exchange: Exchange) -> None:
        self._metrics.count_exchange(exchange)
        self._recorder.record(exchange)

    def _start_shipper(self, spool: Spool) -> None:
        settings = self._settings
        delivery = self._make_delivery(settings.interactions_topic, SHIP_LIMIT_S)
        shipper = SpoolShipper(spool, delivery, log=self.log)
        try:
            shipper.start()
        except RuntimeError:  # no thread to be had: called again
            delivery.close()
            raise
        self._spool, self._shipper = spool, shipper
        self._recorder.on_append = shipper.wake

    def _make_delivery(self, topic: str, limit_s: float) -> Delivery:
        settings = self._settings
        if settings.kafka_bootstrap:
            return KafkaDelivery(
                settings.kafka_bootstrap,
                topic,
                signing_key=self._signing_key,
                name=settings.gateway,
                limit_s=limit_s,
                security=settings.kafka_security,
            )
        if settings.events_url:
            return HttpDelivery(
                settings.events_url,
                token_path=settings.control_token_path,
                limit_s=limit_s,
                on_dead_letters=self._note_dead_letters,
            )
        return NoDelivery()

    def _note_dead_letters(self, by_reason: Mapping[str, int]) -> None:
        self._metrics.count_dead_letters(by_reason)
        self.log.warning("events_became_dead_letters", reasons=dict(by_reason))

    def _stop_threads(self) -> None:
        until = time.monotonic() + self._settings.stop_grace_s
        ended = self._recorder.close(self._settings.stop_grace_s)
        if self._shipper is not None:
            ended = self._shipper.close(max(0.1, until - time.monotonic())) and ended
        self._feedback.close()
        if ended and self._spool is not None:
            self._spool.close()


def _method_and_path(scope: Scope) -> tuple[str, str]:
    return scope.get("method", ""), scope["path"]  # a websocket has no method


def _is_own_route(scope: Scope) -> bool:
    return _method_and_path(scope) == FEEDBACK or scope["path"].startswith("/adaptd/")
