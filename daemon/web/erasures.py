"""Forgetting people. Who asks needs the control token: nothing brings a person back."""

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from adaptd.daemon.domain.erasures import Person
from adaptd.daemon.web.access import Access, Reach, Routes
from adaptd.daemon.web.answers import Because, actor_of, answer
from adaptd.daemon.web.backend import Backend
from adaptd.daemon.web.records import RowLimit


class Whom(Because):
    """In the body and not in the path: paths end up in logs."""

    user: str = Field(min_length=1, max_length=128)
    tenant: str | None = Field(default=None, min_length=1, max_length=128)

    def person(self) -> Person:
        return Person(self.user, self.tenant)


class Erase(Whom):
    """`dry_run`: say what would go, and change nothing."""

    dry_run: bool = False


def router(backend: Backend) -> APIRouter:
    made = Routes(backend, tag="erasures")

    @made.get("/erasures", Access("read", Reach.EVERY))
    async def erasures(limit: RowLimit = 50) -> Response:
        """Erasures, newest first; the people are pseudonyms."""
        return answer(await backend.erasures.list(limit))

    @made.get("/erasures/{erasure_id}", Access("read", Reach.EVERY))
    async def erasure(erasure_id: str) -> Response:
        """One with its report."""
        return answer(await backend.erasures.get(erasure_id))

    @made.post("/erasures", Access("control", Reach.EVERY))
    async def erase(body: Erase, request: Request) -> Response:
        """Erase a person. Safe to repeat."""
        if body.dry_run:
            return answer(await backend.erasures.preview(body.person()))
        begun = await backend.erasures.begin(
            body.person(), reason=body.reason, actor=actor_of(request)
        )
        return answer(begun, 202)

    @made.post("/erasures/lift", Access("control", Reach.EVERY))
    async def lift(body: Whom, request: Request) -> Response:
        """Store events of an erased person again from now on."""
        lifted = await backend.erasures.lift(
            body.person(), reason=body.reason, actor=actor_of(request)
        )
        return answer({"lifted": lifted})

    return made.router
