"""Events that come again or from files: replays, imports, redriven dead letters."""

import msgspec
from fastapi import APIRouter, Request
from pydantic import AwareDatetime, Field, NonNegativeInt
from starlette.responses import Response

from adaptd.daemon.domain.dead_letters import LetterChoice
from adaptd.daemon.domain.replays import ReplayRequest
from adaptd.daemon.web.access import Access, Reach, Routes
from adaptd.daemon.web.answers import Because, Body, actor_of, answer, principal_of
from adaptd.daemon.web.backend import Backend
from adaptd.daemon.web.records import RowLimit


class NewReplay(Body):
    """Offsets or times, not both. Ends are excluded; without one it goes as far as the consumer."""

    topics: list[str] = Field(min_length=1, max_length=100)
    partition: NonNegativeInt | None = None
    from_offset: NonNegativeInt | None = None
    to_offset: NonNegativeInt | None = None
    from_time: AwareDatetime | None = None
    to_time: AwareDatetime | None = None
    reason: str = Field(min_length=1, max_length=1000)


class Cursor(Body):
    received_at: AwareDatetime
    id: str = Field(max_length=1000)
    until: AwareDatetime


class Letters(Body):
    """Letters to redrive: by id, by reason, or (neither) all that wait.

    `after`: the last `next`.
    """

    ids: list[str] = Field(default=[], max_length=1000)
    reason: str | None = Field(default=None, min_length=1)
    after: Cursor | None = None


def router(backend: Backend) -> APIRouter:
    made = Routes(backend, tag="ingest")
    _add_replays(made, backend)

    @made.post("/ingest/imports/{digest}", Access("operate", Reach.EVERY))
    async def import_lines(digest: str, request: Request) -> Response:
        """Store lines of the file with this SHA-256; answers which line comes next.

        The body's first line is `{"start": 1, "options": {"format": …}}`, the others are the
        file's from there on. Without others it only tells the next line. Safe to repeat.
        """
        async with backend.bodies.read(request) as body:
            done = await backend.rereading.import_lines(digest, body, principal_of(request))
        return answer(done)

    @made.get("/deadletters/by-reason", Access("operate", Reach.EVERY))
    async def by_reason() -> Response:
        """Counts since the store was made, and what is kept and waits."""
        return answer(await backend.dead_letters.by_reason())

    @made.post("/deadletters/redrive", Access("operate", Reach.EVERY))
    async def redrive(body: Letters) -> Response:
        """Try dead letters again, some at a time: repeat with `next` as `after` until it is null.

        Safe to repeat. One that is dead again stays, with the new reason.
        """
        choice = msgspec.convert(body.model_dump(), LetterChoice)
        results, cursor = await backend.rereading.redrive(choice)
        return answer({"results": results, "next": cursor})

    return made.router


def _add_replays(made: Routes, backend: Backend) -> None:
    @made.post("/ingest/replays", Access("operate", Reach.EVERY))
    async def begin(body: NewReplay, request: Request) -> Response:
        """Read a part of the log again, beside the live consumer, whose offsets stay."""
        told = body.model_dump()
        reason = told.pop("reason")
        asked = msgspec.convert(told, ReplayRequest)
        actor = actor_of(request)
        return answer(await backend.rereading.begin_replay(asked, actor=actor, reason=reason))

    @made.get("/ingest/replays", Access("read", Reach.EVERY))
    async def replays(limit: RowLimit = 50) -> Response:
        """Replays, newest first, with their progress."""
        return answer(await backend.rereading.replays(limit=limit))

    @made.get("/ingest/replays/{replay_id}", Access("read", Reach.EVERY))
    async def replay(replay_id: str) -> Response:
        """One with its ranges and progress."""
        return answer(await backend.rereading.replay(replay_id))

    @made.post("/ingest/replays/{replay_id}/cancel", Access("operate", Reach.EVERY))
    async def cancel(replay_id: str, body: Because, request: Request) -> Response:
        """End one; what it has stored stays. Safe to repeat."""
        actor = actor_of(request)
        done = await backend.rereading.cancel_replay(replay_id, actor=actor, reason=body.reason)
        return answer(done)
