"""Every route's declaration, beside the route: its scope, whose alias it concerns, its texts.

A token may be limited to some aliases. What a route declares is compared here with the token, so
that no route decides that for itself, and none can be added without saying it.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, assert_never

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from adaptd.daemon.web.answers import principal_of
from adaptd.daemon.web.backend import Backend
from adaptd.daemon.wire.errors import NotPermittedError
from adaptd.daemon.wire.tokens import Principal, Scope

EVERY_REMEDY = "Use a token without aliases: `adaptd token create` without --model"
Endpoint = Callable[..., Awaitable[Response]]


class Reach(StrEnum):
    """Reach of a route that names no alias and nothing of an alias."""

    NONE = "none"  # nothing of any alias
    OWN = "own"  # answers with what concerns the token's aliases, and leaves out the rest
    EVENTS = "events"  # each event names its alias; the door compares it with the token's
    EVERY = "every"  # the whole daemon: refused to a token that is limited to aliases


@dataclass(frozen=True)
class Named:
    """An argument names the alias: `model`, or `body.model`.

    Where it is left out the route answers as `Reach.OWN` does.
    """

    argument: str


@dataclass(frozen=True)
class Owner:
    """An argument names a run, rollout or adapter version; the alias is the one it belongs to."""

    kind: Literal["run", "rollout", "adapter"]
    argument: str


AliasSource = Reach | Named | Owner


@dataclass(frozen=True)
class Access:
    """`scope` None: open to all. `texts`: the answer may hold what people wrote."""

    scope: Scope | None
    alias: AliasSource
    texts: bool = False


class Routes:
    """A router on which no route can be added without its `Access`."""

    def __init__(self, backend: Backend, *, tag: str, prefix: str = "/v1") -> None:
        self._backend = backend
        self.router = APIRouter(prefix=prefix, tags=[tag])

    def get(self, path: str, access: Access) -> Callable[[Endpoint], Endpoint]:
        return self._make_adder("GET", path, access)

    def post(self, path: str, access: Access) -> Callable[[Endpoint], Endpoint]:
        return self._make_adder("POST", path, access)

    def delete(self, path: str, access: Access) -> Callable[[Endpoint], Endpoint]:
        return self._make_adder("DELETE", path, access)

    def _make_adder(self, method: str, path: str, access: Access) -> Callable[[Endpoint], Endpoint]:
        def add(endpoint: Endpoint) -> Endpoint:
            self.router.add_api_route(
                path, self._check_alias_first(endpoint, access), methods=[method]
            )
            return endpoint

        return add

    def _check_alias_first(self, endpoint: Endpoint, access: Access) -> Endpoint:
        """The endpoint, called only where the token sees the alias that its arguments name."""
        signature = inspect.signature(endpoint)
        wants_request = "request" in signature.parameters

        @functools.wraps(endpoint)
        async def checked(request: Request, **given: Any) -> Response:
            if access.scope is not None:
                await self._check_alias(principal_of(request), access.alias, given)
            response = await endpoint(**given, **({"request": request} if wants_request else {}))
            if access.texts:
                response.headers["Cache-Control"] = "no-store"
            return response

        checked.__dict__ |= {"access": access, "__signature__": _with_request(signature)}
        return checked

    async def _check_alias(
        self, principal: Principal, alias: AliasSource, given: Mapping[str, Any]
    ) -> None:
        """Raises NotPermittedError where the token does not see the alias."""
        if principal.models is None:
            return
        model = await self._find_alias(alias, given)
        if model is not None and not principal.sees(model):
            aliases = ", ".join(sorted(principal.models)) or "none"
            problem = f"the token is limited to the aliases {aliases}"
            remedy = f"Use a token for it: `adaptd token create --model {model}`"
            raise NotPermittedError(f"model {model}", problem, remedy)

    async def _find_alias(self, alias: AliasSource, given: Mapping[str, Any]) -> str | None:
        """The alias that the arguments name; None where they name none.

        Raises:
            RefusedError: there is no such run, rollout or version.
        """
        if isinstance(alias, Reach):
            return None
        value = _find_argument(given, alias.argument)
        if isinstance(alias, Named) or value is None:
            return value
        match alias.kind:
            case "run":
                return (await self._backend.runs.get(value)).model
            case "rollout":
                return (await self._backend.rollouts.get(value)).model
            case "adapter":
                return (await self._backend.adapters.get(value)).model
        assert_never(alias.kind)


def access_of(route: BaseRoute) -> Access:
    """Return what a route declares.

    Raises:
        TypeError: it declares nothing.
    """
    found = getattr(getattr(route, "endpoint", None), "access", None)
    if isinstance(found, Access):
        return found
    raise TypeError(f"{route!r} declares no access: add it with adaptd.daemon.web.access.Routes")


def check_declared(routes: Iterable[BaseRoute]) -> None:
    """Refuse a set of routes of which one declares nothing. Raises TypeError."""
    for route in routes:
        access_of(route)


def _find_argument(given: Mapping[str, Any], path: str) -> Any:
    name, _, field = path.partition(".")
    return getattr(given[name], field) if field else given[name]


def _with_request(signature: inspect.Signature) -> inspect.Signature:
    """The same with a parameter `request`, which is how a route gets to know its token."""
    kind = inspect.Parameter.KEYWORD_ONLY
    kept = [
        parameter.replace(kind=kind)
        for name, parameter in signature.parameters.items()
        if name != "request"
    ]
    request = inspect.Parameter("request", kind, annotation=Request)
    return signature.replace(parameters=[*kept, request])
