"""JSON answers made from msgspec structs, rows and mappings; who asked, and why."""

from typing import Any

import msgspec
from fastapi import Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from adaptd.daemon.wire.tokens import Principal


class Because(BaseModel, extra="forbid"):
    """Why an operator does it; kept in the history."""

    reason: str = Field(min_length=1, max_length=1000)


def answer(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def principal_of(request: Request) -> Principal:
    """Who asked; the token check has put it there."""
    return request.state.principal


def actor_of(request: Request) -> str:
    """Who asked, as the history keeps it."""
    return f"operator:{principal_of(request).id}"
