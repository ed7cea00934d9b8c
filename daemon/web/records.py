"""Runs, adapters, evaluations, dead letters and traffic, as the store has them."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from adaptd.daemon.domain.dead_letters import DeadLetter
from adaptd.daemon.web.access import Access, Named, Owner, Reach, Routes
from adaptd.daemon.web.answers import Because, actor_of, answer, principal_of
from adaptd.daemon.web.backend import Backend
from adaptd.daemon.wire.errors import RefusedError

RowLimit = Annotated[int, Query(ge=1, le=1000)]
Hours = Annotated[float, Query(gt=0, le=24 * 30)]


def router(backend: Backend) -> APIRouter:
    made = Routes(backend, tag="records")
    _add_runs(made, backend)
    _add_adapters(made, backend)
    _add_letters(made, backend)

    @made.get("/evaluations", Access("read", Named("model")))
    async def evaluations(
        request: Request, model: str | None = None, run_id: str | None = None, limit: RowLimit = 50
    ) -> Response:
        """Verdicts, newest first, with their reports."""
        seen = principal_of(request).models
        found = await backend.surfaces.evaluations(
            model=model, run_id=run_id, limit=limit, seen=seen
        )
        return answer(found)

    @made.get("/traffic", Access("read", Named("model")))
    async def traffic(model: str, hours: Hours = 24) -> Response:
        """Units, negatives and feedback delays of one alias over the last hours."""
        now = datetime.now(UTC)
        return answer(await backend.surfaces.traffic(model, now - timedelta(hours=hours), now=now))

    return made.router


def _add_runs(made: Routes, backend: Backend) -> None:
    @made.get("/runs", Access("read", Named("model")))
    async def runs(request: Request, model: str | None = None, limit: RowLimit = 50) -> Response:
        """Training runs, newest first."""
        seen = principal_of(request).models
        return answer(await backend.runs.list(model, limit, seen=seen))

    @made.get("/runs/{run_id}", Access("read", Owner("run", "run_id")))
    async def run(run_id: str) -> Response:
        """One run with its evaluation and history."""
        return answer(await _find_run(backend, run_id))

    @made.post("/runs/{run_id}/cancel", Access("operate", Owner("run", "run_id")))
    async def cancel(run_id: str, body: Because, request: Request) -> Response:
        """Stop a run. Safe to repeat."""
        actor = actor_of(request)
        return answer(await backend.operator.cancel_run(run_id, reason=body.reason, actor=actor))


async def _find_run(backend: Backend, run_id: str) -> dict[str, Any]:
    found = msgspec.structs.asdict(await backend.runs.get(run_id))
    found["evaluations"] = await backend.surfaces.evaluations(run_id=run_id)
    found["history"] = await backend.surfaces.history("run", run_id)
    return found


def _add_adapters(made: Routes, backend: Backend) -> None:
    @made.get("/adapters", Access("read", Named("model")))
    async def adapters(request: Request, model: str | None = None) -> Response:
        """Every version, newest first."""
        return answer(await backend.adapters.list(model, seen=principal_of(request).models))

    @made.get("/adapters/{name}", Access("read", Owner("adapter", "name")))
    async def adapter(name: str) -> Response:
        """One version with its swap receipts and history."""
        found = msgspec.structs.asdict(await backend.adapters.get(name))
        found["receipts"] = await backend.surfaces.receipts(name)
        found["history"] = await backend.surfaces.history("adapter", name)
        return answer(found)


def _add_letters(made: Routes, backend: Backend) -> None:
    @made.get("/deadletters", Access("read", Reach.EVERY))
    async def letters(reason: str | None = None, limit: RowLimit = 50) -> Response:
        """Events that could not be used, newest first, without their bytes."""
        return answer(await backend.dead_letters.list(reason=reason, limit=limit))

    @made.get("/deadletters/{letter_id:path}", Access("operate", Reach.EVERY, texts=True))
    async def letter(letter_id: str) -> Response:
        """One with its bytes: as text where they are UTF-8, else base64."""
        found = await backend.dead_letters.show(letter_id)
        if found is None:
            remedy = "List them: adaptd deadletters list"
            raise RefusedError(f"dead letter {letter_id}", "there is no such letter", remedy)
        return answer(_make_readable(found))


def _make_readable(letter: DeadLetter) -> dict[str, Any]:
    fields = msgspec.structs.asdict(letter)
    content: bytes | None = fields.pop("bytes")
    if content is None:
        return fields
    try:
        return fields | {"text": content.decode()}
    except UnicodeDecodeError:
        return fields | {"base64": base64.b64encode(content).decode()}
