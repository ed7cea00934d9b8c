"""Ports of the surfaces to the rest of the daemon. `daemon.wiring` fills them in."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec

from adaptd.daemon.domain.meters import Meter
from adaptd.daemon.wire.routes import GatewayState
from adaptd.daemon.wire.tokens import Principal

RolloutAction = Literal["pause", "resume", "promote", "abort"]


class PartState(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the daemon as `/readyz` sees it. `problem` is None while it is ready."""

    part: str
    problem: str | None = None


class PolicyState(msgspec.Struct, frozen=True, kw_only=True):
    """One alias's policy in force."""

    model: str
    version: int
    path: str
    sha256: str
    loaded_at: datetime
    yaml: str


class StatusProblem(msgspec.Struct, frozen=True, kw_only=True):
    """Something a person should look at. `level` is error or warning."""

    level: Literal["error", "warning"]
    what: str
    remedy: str


class GatewaySeen(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway's last answer and when it came."""

    state: GatewayState
    seen_at: datetime


class LiveFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts that only the running process knows, at one moment.

    `ingest`: `source` (kafka or http), `state`, `problem`, `lag`. `host`: `url`, `dtype`, `state`
    (ready, starting, down), `instance`, `loaded`. `triggers`: by alias, why it trains or waits.
    `restore`: the last restore of this store and whether it holds everything still.
    """

    started_at: datetime
    parts: list[PartState] = []
    policies: list[PolicyState] = []
    problems: list[StatusProblem] = []
    gateways: list[GatewaySeen] = []
    ingest: dict[str, Any] = {}
    meters: dict[str, Meter] = {}  # by source: kafka, http
    host: dict[str, Any] = {}
    triggers: dict[str, str] = {}
    restore: dict[str, Any] | None = None


class Live(Protocol):
    """Asks every part; none may make it wait long."""

    async def look(self) -> LiveFacts: ...


class Operator(Protocol):
    """The operator's commands. Every method raises RefusedError where the state forbids it.

    `actor` is who asked, as the history keeps it. The answers are msgspec structs or mappings.
    """

    async def cancel_run(self, run_id: str, *, reason: str, actor: str) -> Any: ...

    async def start_rollout(
        self, adapter: str, *, override_reason: str | None, actor: str
    ) -> Any: ...

    async def act_on_rollout(
        self, rollout_id: str, action: RolloutAction, *, reason: str, actor: str
    ) -> Any: ...

    async def roll_back(self, model: str, *, reason: str, actor: str) -> Any: ...

    async def resume_ingest(self, *, reason: str, actor: str, resync: bool = False) -> Any:
        """Clear a halt. `resync` accepts what the broker no longer has."""
        ...


class RecoveryPort(Protocol):
    """Backups and restores. Methods raise RefusedError as `Operator`'s do."""

    def start_backup(self, destination: str, *, secrets: bool, actor: str) -> Any: ...

    def backup_job(self) -> Any: ...

    def cancel_backup(self) -> Any: ...

    async def release_store(self, *, reason: str, actor: str) -> Any:
        """Let a restored store act though it does not agree with what runs."""
        ...


class Tokens(Protocol):
    def lookup(self, bearer: str) -> Principal | None:
        """Find the owner of a token; None for an unknown one."""
        ...


class Door(Protocol):
    """Takes events over HTTP; see consumers.doors.http_door. The results say `result`: stored, …"""

    async def accept(
        self, body: bytes, content_type: str, principal: Principal
    ) -> Sequence[Any]: ...
