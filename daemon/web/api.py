"""The daemon's HTTP API. Every answer is JSON; errors say where, what and what to do."""

from datetime import UTC, datetime
from typing import Literal

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import Response

from adaptd import __version__
from adaptd.daemon.web import erasures, events, records, recovery, rereading, rollouts
from adaptd.daemon.web.access import Access, Reach, Routes, check_declared
from adaptd.daemon.web.answers import Because, actor_of, answer, principal_of
from adaptd.daemon.web.auth import RequireToken
from adaptd.daemon.web.backend import Backend
from adaptd.daemon.web.errors import add_error_handlers
from adaptd.daemon.web.metrics import render_metrics
from adaptd.daemon.web.status import (
    gateway_documents,
    ingest_document,
    limited_document,
    not_ready,
    status_document,
)

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def make_api(backend: Backend) -> FastAPI:
    """The ASGI application. Interactive pages are left out: they load scripts from elsewhere.

    Raises:
        TypeError: a route does not declare who may call it.
    """
    app = FastAPI(
        title="adaptd", version=__version__, openapi_url=None, docs_url=None, redoc_url=None
    )
    add_error_handlers(app)
    for router in (
        _add_probes(backend),
        rereading.router(backend),  # its paths go before patterns of others
        _add_overview(backend, app),
        records.router(backend),
        rollouts.router(backend),
        events.router(backend),
        erasures.router(backend),
        recovery.router(backend),
    ):
        # Not `include_router`: newer FastAPI hides the routes that it includes, and each route is
        # read for its access here and by the middleware.
        app.router.routes.extend(router.routes)
    check_declared(app.routes)
    app.add_middleware(RequireToken, tokens=backend.tokens, routes=app.routes)
    return app


def _add_probes(backend: Backend) -> APIRouter:
    routes = Routes(backend, tag="probes", prefix="")

    @routes.get("/healthz", Access(None, Reach.NONE))
    async def healthz() -> Response:
        """The process answers. Open to all."""
        return answer({"status": "ok"})

    @routes.get("/readyz", Access(None, Reach.NONE))
    async def readyz() -> Response:
        """200 where every part works, else 503 with those that do not. Open to all: names only."""
        live = await backend.live.look()
        waiting = [part.part for part in not_ready(live.parts)]
        halted = live.ingest.get("state") == "halted"
        told = {"ready": not waiting, "not_ready": waiting, "halted": halted}
        return answer(told, 503 if waiting else 200)

    @routes.get("/metrics", Access("read", Reach.EVERY))
    async def metrics() -> Response:
        """Prometheus text; docs/metrics.md lists every name."""
        facts = await backend.surfaces.facts(datetime.now(UTC))
        live = await backend.live.look()
        return Response(render_metrics(facts, live), media_type=_METRICS_TYPE)

    return routes.router


def _add_overview(backend: Backend, app: FastAPI) -> APIRouter:
    routes = Routes(backend, tag="overview")

    @routes.get("/openapi.json", Access("read", Reach.NONE))
    async def openapi() -> Response:
        """This API's description."""
        return answer(app.openapi())

    @routes.get("/status", Access("read", Reach.OWN))
    async def status(request: Request) -> Response:
        """Everything at a glance: what `adaptd watch` draws.

        A token limited to aliases gets those aliases, their alerts, and which parts are not ready.
        """
        now = datetime.now(UTC)
        facts, live = await backend.surfaces.facts(now), await backend.live.look()
        if (models := principal_of(request).models) is not None:
            return answer(limited_document(facts, live, now, models))
        return answer(status_document(facts, live, now))

    @routes.get("/policies", Access("read", Reach.OWN))
    async def policies(request: Request) -> Response:
        """Every policy in force that the token may see, with its text."""
        found, principal = (await backend.live.look()).policies, principal_of(request)
        return answer([policy for policy in found if principal.sees(policy.model)])

    @routes.get("/gateways", Access("read", Reach.EVERY))
    async def gateways() -> Response:
        """The last state of every gateway."""
        return answer(gateway_documents((await backend.live.look()).gateways))

    _add_ingest(routes, backend)
    return routes.router


def _add_ingest(routes: Routes, backend: Backend) -> None:
    @routes.post("/ingest/{action}", Access("operate", Reach.EVERY))
    async def resume_ingest(
        action: Literal["resume", "resync"], body: Because, request: Request
    ) -> Response:
        """Clear a halt and read on from the store's position; `resync` accepts what is gone."""
        done = await backend.operator.resume_ingest(
            reason=body.reason, actor=actor_of(request), resync=action == "resync"
        )
        return answer(done)

    @routes.get("/ingest", Access("read", Reach.EVERY))
    async def ingest() -> Response:
        """Sources of events, how far each is stored, and what halted them."""
        facts = await backend.surfaces.facts(datetime.now(UTC))
        return answer(ingest_document(facts, await backend.live.look()))
