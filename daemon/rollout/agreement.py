"""Compare a restored store with what gateways already do. Pure."""

from collections.abc import Iterable, Sequence

import msgspec

from adaptd.daemon.wire.routes import VERSION_NAME, Route, RouteTable


class Disagreement(msgspec.Struct, frozen=True, kw_only=True):
    """Something that keeps a restored store from acting. `waits`: it may end by itself."""

    what: str
    remedy: str
    waits: bool = False


def disagreements(stored: RouteTable | None, followed: Sequence[RouteTable]) -> list[Disagreement]:
    """List where traffic would move if the store's routes were published now.

    A gateway whose table is older than the store's disagrees in nothing: it only missed what was
    decided before the backup. A gateway without a table is not in `followed`.
    """
    epoch = stored.epoch if stored else 0
    routes = stored.routes if stored else {}
    return [
        _describe_disagreement(alias, routes.get(alias), table.routes.get(alias), table.epoch)
        for table in followed
        if table.epoch >= epoch
        for alias in sorted(routes.keys() | table.routes.keys())
        if _decisions_of(routes.get(alias)) != _decisions_of(table.routes.get(alias))
    ]


def numbers_of(names: Iterable[str]) -> dict[str, int]:
    """The highest version number of each alias among names, others left out (D1)."""
    highest: dict[str, int] = {}
    for name in names:
        if match := VERSION_NAME.match(name):
            alias, number = match["alias"], int(match["number"])
            highest[alias] = max(number, highest.get(alias, 0))
    return highest


def names_in(table: RouteTable) -> set[str]:
    """Every version that a table names."""
    routes = table.routes.values()
    named = {name for r in routes for name in (r.live, r.last_good, r.canary) if name}
    return named | set(table.paths)


def _decisions_of(route: Route | None) -> tuple[object, ...] | None:
    """The decided part of a route; the rest follows from policy and host."""
    if route is None:
        return None
    canary = (route.canary, route.weight, route.rollout) if route.canary_on else None
    return route.live, route.last_good, canary


def _describe_disagreement(
    alias: str, stored: Route | None, followed: Route | None, epoch: int
) -> Disagreement:
    what = f"{alias}: gateways follow {_describe_route(followed)} (table {epoch}), the backup says "
    remedy = "Accept the backup's: adaptd store release --reason …, or take a newer backup"
    return Disagreement(what=what + _describe_route(stored), remedy=remedy)


def _describe_route(route: Route | None) -> str:
    if route is None:
        return "nothing"
    words = f"live {route.live or 'base'}"
    return words + (f", canary {route.canary} at {route.weight:.0%}" if route.canary_on else "")
