"""Errors as JSON: `{"error": {"kind", "where", "problem", "remedy"}}`, never a stack trace."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from adaptd.daemon.wire.errors import (
    AdaptdError,
    AwayError,
    BusyError,
    HaltError,
    HostError,
    MalformedError,
    NotPermittedError,
    PolicyError,
    RefusedError,
    StoreError,
    TooLargeError,
    TooSlowError,
    UnknownEncodingError,
)
from adaptd.daemon.wire.texts import encode_json

# The first that fits: a subclass stands before what it is made of.
_STATUS: dict[type[AdaptdError], tuple[int, str]] = {
    NotPermittedError: (HTTPStatus.FORBIDDEN, "refused"),
    TooLargeError: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "refused"),
    MalformedError: (HTTPStatus.BAD_REQUEST, "refused"),
    UnknownEncodingError: (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "refused"),
    TooSlowError: (HTTPStatus.REQUEST_TIMEOUT, "refused"),
    BusyError: (HTTPStatus.TOO_MANY_REQUESTS, "busy"),
    RefusedError: (HTTPStatus.CONFLICT, "refused"),
    PolicyError: (HTTPStatus.UNPROCESSABLE_ENTITY, "policy"),
    HostError: (HTTPStatus.BAD_GATEWAY, "host"),
    HaltError: (HTTPStatus.SERVICE_UNAVAILABLE, "halted"),
    StoreError: (HTTPStatus.SERVICE_UNAVAILABLE, "store"),
    AwayError: (HTTPStatus.SERVICE_UNAVAILABLE, "away"),
}
_REMEDY = {
    401: "Send Authorization: Bearer with a token made by `adaptd token create`",
    403: "Use a token with that scope: `adaptd token create --scope`",
    404: "See `/v1/openapi.json` for what there is",
    413: "Send fewer events at once",
    429: "Wait and send it again",
    503: "Wait and send it again",
}


def problem_response(
    status: int, where: str, problem: str, remedy: str | None = None, *, kind: str = "refused"
) -> Response:
    """One error. A 401 says how to authenticate, a 429 or 503 when to come back."""
    told = remedy or _REMEDY.get(status, "Correct the request")
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers["Retry-After"] = "1"
    error = {"kind": kind, "where": where, "problem": problem, "remedy": told}
    content = encode_json({"error": error})
    return Response(content, status, headers, media_type="application/json")


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(AdaptdError, _answer_ours)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_invalid)


async def _answer_ours(_request: Request, error: Exception) -> Response:
    assert isinstance(error, AdaptdError)
    kinds = (pair for kind, pair in _STATUS.items() if isinstance(error, kind))
    status, word = next(kinds, (HTTPStatus.INTERNAL_SERVER_ERROR, "internal"))
    return problem_response(status, error.where, error.problem, error.remedy, kind=word)


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem_response(error.status_code, request.url.path, str(error.detail))


async def _answer_invalid(request: Request, error: Exception) -> Response:
    """Names the fields that are wrong, not what they held."""
    assert isinstance(error, RequestValidationError)
    named = [(".".join(map(str, e["loc"][1:])), e["msg"]) for e in error.errors()]
    wrong = "; ".join(": ".join(filter(None, each)) for each in named)
    return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, request.url.path, wrong)
