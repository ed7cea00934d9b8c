"""The route table, which is all a gateway knows. Pure; gateway and daemon share it."""

import hashlib
import re
from enum import StrEnum
from typing import Literal

import msgspec

from adaptd.daemon.wire.events import AwareTime


class Arm(StrEnum):
    """Arm of a rollout that answered, as logged at serving."""

    LIVE = "live"
    CANARY = "canary"
    HOLDBACK = "holdback"
    SHADOW = "shadow"


VERSION_NAME = re.compile(
    r"^(?P<alias>[a-z0-9][a-z0-9._-]{0,62})@v(?P<number>[1-9][0-9]*)-(?P<hash>[0-9a-f]{8})$"
)


def version_name(alias: str, number: int, content_hash: str) -> str:
    """Name an immutable adapter version (D1), e.g. `support@v3-1f00ba42`."""
    return f"{alias}@v{number}-{content_hash[:8]}"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Route of one alias. An adapter name of None is the base model.

    `weight` is the canary's share of units, from 0 to 1; it counts only while `canary_on`.
    `holdback` is the share kept on `last_good` after promotion. `salt` (the rollout's id) makes
    the assignment of units independent between rollouts. `canary_on` tells a canary of weight 0
    from no canary, since None names the base. Not `ready`: the host has restarted and live has no
    receipt on it yet, so requests are answered 503 until then.
    """

    alias: str
    live: str | None = None
    last_good: str | None = None
    canary: str | None = None
    canary_on: bool = False
    ready: bool = True
    weight: float = 0.0
    holdback: float = 0.0
    salt: str = ""
    rollout: str | None = None
    split: Literal["conversation", "user"] = "conversation"
    base_digest: str | None = None
    template_digest: str | None = None


class RouteTable(msgspec.Struct, frozen=True, kw_only=True):
    """All routes, under one epoch that only rises. `base` is vLLM's name of the base.

    `paths` are the directories of the versions. A gateway whose server starts while the daemon is
    away loads live and last-good from them.
    """

    epoch: int
    base: str
    lease_s: float = 5.0
    routes: dict[str, Route] = {}
    paths: dict[str, str] = {}


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Assignment of one request: logged with it, never shown to the client."""

    adapter: str | None
    arm: Arm
    weight: float
    rollout: str | None


def share_of(salt: str, unit: str) -> float:
    """Place a unit from 0 (included) to 1 (excluded): sticky, and new for every salt."""
    digest = hashlib.blake2b(f"{salt}\0{unit}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def choose(route: Route, unit: str, *, lease_held: bool) -> Choice:
    """Assign a unit to an arm.

    Monotone: raising the weight only adds units to the canary, rollback returns exactly those.
    Without the lease a canary's traffic goes to live; live never expires.
    """
    position = share_of(route.salt, unit)
    if route.canary_on:
        if lease_held and position < route.weight:
            return Choice(
                adapter=route.canary, arm=Arm.CANARY, weight=route.weight, rollout=route.rollout
            )
        weight = route.weight if lease_held else 0.0
        return Choice(adapter=route.live, arm=Arm.LIVE, weight=weight, rollout=route.rollout)
    # At the top end of the same share: units kept back through the last step stay kept back.
    if route.holdback > 0 and position >= 1 - route.holdback:
        return Choice(
            adapter=route.last_good,
            arm=Arm.HOLDBACK,
            weight=1 - route.holdback,
            rollout=route.rollout,
        )
    return Choice(
        adapter=route.live, arm=Arm.LIVE, weight=1 - route.holdback, rollout=route.rollout
    )


class ThreadState(msgspec.Struct, frozen=True, kw_only=True):
    """A thread of a gateway. `problem`: what it waits for, `since` when; None while it works."""

    name: str
    problem: str | None = None
    since: AwareTime | None = None


class GatewayState(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway's answer to a published table.

    `in_flight` counts requests by vLLM's name of the model, `spool_events` events that are captured
    and not yet accepted elsewhere. Not `table_saved`: the table is in force, but the disk did not
    take it. `dtype` is the number format that the server around the gateway computes in; None where
    the gateway is not in the server's process. `threads` put events on disk (`capture`) and send
    them (`shipping`).
    """

    gateway: str
    epoch: int
    in_flight: dict[str, int] = {}
    spool_events: int = 0
    texts_dropped: int = 0
    rows_lost: int = 0
    lease_held: bool = False
    table_saved: bool = True
    dtype: str | None = None
    threads: tuple[ThreadState, ...] = ()
