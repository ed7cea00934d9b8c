"""Backups, and the release of a restored store."""

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from adaptd.daemon.web.access import Access, Reach, Routes
from adaptd.daemon.web.answers import Because, Body, actor_of, answer
from adaptd.daemon.web.backend import Backend


class NewBackup(Body):
    """`destination`: an absolute path on the daemon's machine that does not exist yet."""

    destination: str = Field(min_length=1, max_length=4096)
    secrets: bool = True


def router(backend: Backend) -> APIRouter:
    made = Routes(backend, tag="upkeep")

    @made.post("/backup", Access("control", Reach.EVERY))
    async def start(body: NewBackup, request: Request) -> Response:
        """Begin a backup; GET says how it goes."""
        job = backend.recovery.start_backup(
            body.destination, secrets=body.secrets, actor=actor_of(request)
        )
        return answer(job, 202)

    @made.get("/backup", Access("read", Reach.EVERY))
    async def job() -> Response:
        """The newest backup: phase, bytes, result."""
        return answer(backend.recovery.backup_job())

    @made.delete("/backup", Access("control", Reach.EVERY))
    async def cancel() -> Response:
        """Stop the one under way; it leaves nothing."""
        return answer(backend.recovery.cancel_backup())

    @made.post("/store/release", Access("operate", Reach.EVERY))
    async def release(body: Because, request: Request) -> Response:
        """Let a restored store act though it does not agree with what runs."""
        return answer(
            await backend.recovery.release_store(reason=body.reason, actor=actor_of(request))
        )

    return made.router
