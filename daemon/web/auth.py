"""Who may call: every path needs a token with the right scope unless it is listed as open."""

from http import HTTPStatus
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from adaptd.daemon.web.errors import problem_response
from adaptd.daemon.wire.tokens import Principal

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_EVENTS_PATH = "/v1/events"
_ERASURES_PATH = "/v1/erasures"
_BACKUP_PATH = "/v1/backup"  # writes secrets where it is told to
_LETTER_PATH = "/v1/deadletters/"
_CONTROL = "control"  # the local operator's token: may do everything here


class Tokens(Protocol):
    def lookup(self, bearer: str) -> Principal | None: ...


class RequireToken:
    """ASGI: answers 401 or 403 itself, before any route, body or validation is looked at."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no route speaks anything else
            return
        principal = self._tokens.lookup(_bearer(scope))
        if principal is None:
            status, problem = HTTPStatus.UNAUTHORIZED, "no valid token"
        elif not may(principal, needed := needed_scope(scope["method"], scope["path"])):
            status, problem = HTTPStatus.FORBIDDEN, f"the token lacks the scope {needed}"
        else:
            scope.setdefault("state", {})["principal"] = principal
            await self._app(scope, receive, send)
            return
        await problem_response(status, scope["path"], problem)(scope, receive, send)


def needed_scope(method: str, path: str) -> str:
    """Reading needs `read`, events `events`, erasing and backups `control`, all else `operate`.

    So does a dead letter's content: it may be a prompt of any tenant.
    """
    if path == _EVENTS_PATH:
        return "events"
    if path.startswith((_ERASURES_PATH, _BACKUP_PATH)) and method not in ("GET", "HEAD"):
        return _CONTROL
    reads = method in ("GET", "HEAD") and not path.startswith(_LETTER_PATH)
    return "read" if reads else "operate"


def may(principal: Principal, needed: str) -> bool:
    scopes = frozenset(principal.scopes)
    return bool(scopes & {needed, _CONTROL}) or (needed == "read" and "operate" in scopes)


def _bearer(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if kind.lower() == "bearer" else ""
    return ""
