"""`POST /v1/events`: the door for senders without a broker; answered after the commit."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from adaptd.daemon.web.access import Access, Reach, Routes
from adaptd.daemon.web.answers import answer, principal_of
from adaptd.daemon.web.backend import Backend
from adaptd.daemon.web.errors import problem_response
from adaptd.daemon.wire.tokens import Principal


def router(backend: Backend) -> APIRouter:
    made = Routes(backend, tag="events")

    @made.post("/events", Access("events", Reach.EVENTS))
    async def events(request: Request) -> Response:
        """Store a JSON event, a list, a batch, or NDJSON lines (application/x-ndjson).

        A body may be packed (content-encoding gzip or zstd). Answers what became of each event, in
        order: stored, duplicate or dead_letter with its reason. 413 where there is too much of it,
        422 where nothing of the body could be used (it is kept as dead letters), 429 where the
        store is behind: Retry-After says when to come back. Safe to repeat.
        """
        principal = principal_of(request)
        async with backend.bodies.read(request) as body:
            if not body.strip():
                return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, "body", "it is empty")
            content_type = request.headers.get("content-type", "")
            results = await backend.door.accept(body, content_type, principal)
        return answer({"results": results}, _choose_status(results, principal))

    return made.router


def _choose_status(results: Sequence[Any], principal: Principal) -> int:
    """A gateway is told 200 even so: its events are kept, and it would only send them again."""
    useless = bool(results) and all(result.result == "dead_letter" for result in results)
    if useless and not principal.may("control"):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    return HTTPStatus.OK
