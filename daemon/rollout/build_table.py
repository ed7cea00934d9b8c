"""From versions, rollouts and receipts to the routes that gateways follow. Pure."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Literal

import msgspec

from adaptd.daemon.domain.rollouts import Rollout
from adaptd.daemon.domain.states import RolloutState
from adaptd.daemon.rollout.decide import is_watched
from adaptd.daemon.rollout.plan import Plan
from adaptd.daemon.rollout.state import RolloutFacts
from adaptd.daemon.wire.routes import Route


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of an alias that its route needs beside versions and rollouts."""

    name: str
    split: Literal["conversation", "user"] = "conversation"
    base_digest: str | None = None
    template_digest: str | None = None


def build_routes(
    present: RolloutFacts,
    aliases: Collection[Alias],
    plans: Mapping[str, Plan],
    *,
    verified: Collection[str],
    now: datetime,
) -> dict[str, Route]:
    """Every alias's route. `plans` by rollout; `verified` are versions with a receipt (D3).

    A version without a receipt gets no traffic: a canary's share stays on live, and an alias whose
    live version lacks one is not ready.
    """
    return {alias.name: _build_route(present, alias, plans, verified, now) for alias in aliases}


def _build_route(
    present: RolloutFacts,
    alias: Alias,
    plans: Mapping[str, Plan],
    verified: Collection[str],
    now: datetime,
) -> Route:
    live, last_good = present.live(alias.name), present.last_good(alias.name)
    route = Route(
        alias=alias.name,
        live=live,
        last_good=last_good,
        ready=live is None or live in verified,
        split=alias.split,
        base_digest=alias.base_digest,
        template_digest=alias.template_digest,
    )
    active, promoted = present.active(alias.name), present.promoted(alias.name)
    if active and _takes_traffic(active) and active.candidate in verified:
        return _with_canary(route, active, plans.get(active.rollout_id))
    if promoted and (last_good is None or last_good in verified):
        return _with_holdback(route, promoted, plans.get(promoted.rollout_id), now)
    return route


def named_paths(present: RolloutFacts, routes: Mapping[str, Route]) -> dict[str, str]:
    """Directories of the versions that routes name, for a gateway that starts without the
    daemon.
    """
    names = {n for r in routes.values() for n in (r.live, r.last_good, r.canary) if n}
    return {name: present.adapters[name].path for name in sorted(names) if name in present.adapters}


def _takes_traffic(rollout: Rollout) -> bool:
    return rollout.state == RolloutState.STEP and not rollout.withdrawn


def _with_canary(route: Route, rollout: Rollout, plan: Plan | None) -> Route:
    if plan is None:
        return route
    return msgspec.structs.replace(
        route,
        canary=rollout.candidate,
        canary_on=True,
        weight=plan.weight(rollout.step),
        split=plan.split,
        salt=rollout.rollout_id,
        rollout=rollout.rollout_id,
    )


def _with_holdback(route: Route, rollout: Rollout, plan: Plan | None, now: datetime) -> Route:
    if plan is None or not is_watched(rollout, plan, now=now):
        return route
    return msgspec.structs.replace(
        route,
        holdback=plan.holdback,
        split=plan.split,
        salt=rollout.rollout_id,
        rollout=rollout.rollout_id,
    )
