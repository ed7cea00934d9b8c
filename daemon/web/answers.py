"""JSON answers made from msgspec structs, rows and mappings; who asked, and why."""

from typing import Any

from fastapi import Request
from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from adaptd.daemon.wire.texts import encode_json, unencodable_in
from adaptd.daemon.wire.tokens import Principal


class Body(BaseModel, extra="forbid"):
    """A request's body. JSON may escape halves of letters, which no store or answer can hold."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_surrogates(cls, given: Any) -> Any:
        if unencodable_in(given) is not None:
            raise PydanticCustomError("text", "a text holds half a letter (a lone surrogate)")
        return given


class Because(Body):
    """The operator's reason; kept in the history."""

    reason: str = Field(min_length=1, max_length=1000)


def answer(value: Any, status: int = 200) -> Response:
    return Response(encode_json(value), status, media_type="application/json")


def principal_of(request: Request) -> Principal:
    """The caller, as the token check put it into the request."""
    return request.state.principal


def actor_of(request: Request) -> str:
    """The caller, as the history keeps it."""
    return f"operator:{principal_of(request).id}"
