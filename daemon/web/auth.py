"""Check callers: each route declares the scope it needs, and nothing else is open."""

from collections.abc import Sequence
from http import HTTPStatus

from starlette.responses import Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from adaptd.daemon.web.access import EVERY_REMEDY, Access, Reach, access_of
from adaptd.daemon.web.errors import problem_response
from adaptd.daemon.web.ports import Tokens
from adaptd.daemon.wire.tokens import Principal, Scope


class RequireToken:
    """ASGI: answers 401 or 403 itself, before any body or validation is looked at."""

    def __init__(self, app: ASGIApp, *, tokens: Tokens, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._tokens = tokens
        self._routes = routes

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":  # no route speaks anything else
            refused = self._find_refusal(scope, find_access(scope, self._routes))
            await (refused or self._app)(scope, receive, send)

    def _find_refusal(self, scope: Connection, access: Access) -> Response | None:
        """Say why the caller may not; None where they may. The principal is then in the state."""
        if access.scope is None:
            return None
        principal = self._tokens.lookup(_read_bearer(scope))
        if principal is None:
            return problem_response(HTTPStatus.UNAUTHORIZED, scope["path"], "no valid token")
        if not may(principal, access.scope):
            problem = f"the token lacks the scope {access.scope}"
            return problem_response(HTTPStatus.FORBIDDEN, scope["path"], problem)
        if access.alias is Reach.EVERY and principal.models is not None:
            problem = "the token is limited to some aliases, and this concerns all of them"
            return problem_response(HTTPStatus.FORBIDDEN, scope["path"], problem, EVERY_REMEDY)
        scope.setdefault("state", {})["principal"] = principal
        return None


def find_access(scope: Connection, routes: Sequence[BaseRoute]) -> Access:
    """Find the access that a request's route declares; a path without a route gets the default.

    A probe stays open whatever the method.
    """
    for route in routes:
        match, _ = route.matches(scope)
        access = access_of(route)
        if match is Match.FULL or (match is Match.PARTIAL and access.scope is None):
            return access
    reads = scope["method"] in ("GET", "HEAD")
    return Access("read" if reads else "operate", Reach.NONE)


def may(principal: Principal, needed: Scope) -> bool:
    """True where the token has the scope, or one that holds it: `control` holds all here."""
    return (
        principal.may(needed)
        or principal.may("control")
        or (needed == "read" and principal.may("operate"))
    )


def _read_bearer(scope: Connection) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if kind.lower() == "bearer" else ""
    return ""
