"""Rollouts: what they are, and an operator's hand on them."""

import msgspec
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from adaptd.daemon.web.access import Access, Named, Owner, Routes
from adaptd.daemon.web.answers import Because, Body, actor_of, answer, principal_of
from adaptd.daemon.web.backend import Backend
from adaptd.daemon.web.ports import RolloutAction
from adaptd.daemon.web.records import RowLimit


class Begin(Body):
    """`override_reason` skips the gate, never the steps."""

    adapter: str = Field(min_length=1, max_length=200)
    override_reason: str | None = Field(default=None, min_length=1, max_length=1000)


class Back(Because):
    model: str = Field(min_length=1, max_length=128)


def router(backend: Backend) -> APIRouter:
    made = Routes(backend, tag="rollouts")

    @made.get("/rollouts", Access("read", Named("model")))
    async def rollouts(
        request: Request, model: str | None = None, limit: RowLimit = 50
    ) -> Response:
        """Rollouts, newest first."""
        seen = principal_of(request).models
        return answer(await backend.rollouts.list(model, limit, seen=seen))

    @made.get("/rollouts/{rollout_id}", Access("read", Owner("rollout", "rollout_id")))
    async def rollout(rollout_id: str) -> Response:
        """One rollout with its history."""
        found = msgspec.structs.asdict(await backend.rollouts.get(rollout_id))
        found["history"] = await backend.surfaces.history("rollout", rollout_id)
        return answer(found)

    _add_commands(made, backend)
    return made.router


def _add_commands(made: Routes, backend: Backend) -> None:
    @made.post("/rollouts", Access("operate", Owner("adapter", "body.adapter")))
    async def begin(body: Begin, request: Request) -> Response:
        """Begin a rollout of an accepted version, or of any with an override."""
        begun = await backend.operator.start_rollout(
            body.adapter, override_reason=body.override_reason, actor=actor_of(request)
        )
        return answer(begun, 201)

    @made.post("/rollouts/{rollout_id}/{action}", Access("operate", Owner("rollout", "rollout_id")))
    async def act(
        rollout_id: str, action: RolloutAction, body: Because, request: Request
    ) -> Response:
        """Pause, resume, promote or abort."""
        done = await backend.operator.act_on_rollout(
            rollout_id, action, reason=body.reason, actor=actor_of(request)
        )
        return answer(done)

    @made.post("/rollback", Access("operate", Named("body.model")))
    async def roll_back(body: Back, request: Request) -> Response:
        """Send an alias's traffic back to its last good version."""
        actor = actor_of(request)
        return answer(await backend.operator.roll_back(body.model, reason=body.reason, actor=actor))
