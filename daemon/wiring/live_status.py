"""The state of the running parts, gathered for status, watch and /metrics."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import msgspec

from adaptd.consumers.kafka.service import IngestService, IngestStatus
from adaptd.daemon.domain.meters import Meter
from adaptd.daemon.domain.ports import AdapterHost, RoutePublisher
from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.recovery.restored_store import Restoration
from adaptd.daemon.rollout.service import RolloutService
from adaptd.daemon.scheduling.decide import Decision
from adaptd.daemon.web.ports import GatewaySeen, LiveFacts, PartState, PolicyState, StatusProblem
from adaptd.daemon.wire.errors import HostError
from adaptd.daemon.wire.routes import GatewayState, RouteTable

_HOST_LIMIT_S = 2.0
_HOST_PATIENCE_S = 10.0  # one step of a full batch of long prompts takes seconds on a CPU
_HOST_FRESH_S = 1.0
_THREAD_PATIENCE = timedelta(seconds=10)  # a broker that starts anew is no failure yet


class SeenPublisher:
    """A RoutePublisher that remembers the last answer of every gateway, and its time."""

    def __init__(self, publisher: RoutePublisher, *, patience_s: float) -> None:
        """A gateway that is silent for less than `patience_s` counts as busy, not away."""
        self._publisher = publisher
        self._patience_s = patience_s
        self._answered = -inf
        self._problem = "no gateway has answered yet"
        self._states: Sequence[GatewayState] = ()
        self.seen: dict[str, GatewaySeen] = {}

    @property
    def states_now(self) -> Sequence[GatewayState]:
        """The last answers of the gateways; none where they are silent."""
        return self._states if self.problem is None else ()

    @property
    def problem(self) -> str | None:
        """The reason why the gateways do not follow the table; None where they do."""
        silent_s = time.monotonic() - self._answered
        return self._problem if silent_s > self._patience_s else None

    def waiting(self) -> int | None:
        """Count the requests that the gateways are answering; None without a recent answer."""
        if self.problem is not None:
            return None
        return sum(sum(state.in_flight.values()) for state in self._states)

    async def publish(self, table: RouteTable) -> Sequence[GatewayState]:
        return await self._remember_states(self._publisher.publish(table))

    async def states(self) -> Sequence[GatewayState]:
        return await self._remember_states(self._publisher.states())

    async def tables(self) -> Sequence[RouteTable]:
        return await self._publisher.tables()

    async def _remember_states(
        self, asked: Coroutine[Any, Any, Sequence[GatewayState]]
    ) -> Sequence[GatewayState]:
        try:
            states = await asked
        except HostError as error:
            self._problem = error.problem
            raise
        now = datetime.now(UTC)
        # Merged, not replaced: a gateway that has gone away stays visible with its last answer.
        self.seen |= {state.gateway: GatewaySeen(state=state, seen_at=now) for state in states}
        self._states = states
        self._answered = time.monotonic()
        return states


class HostWatch:
    """Asks the serving host for its state, at most once a second."""

    def __init__(
        self, host: AdapterHost, *, url: str, starting: Callable[[], str | None] = lambda: None
    ) -> None:
        """`starting` describes a start of the host in words; None where it is not starting."""
        self._host = host
        self._url = url
        self._starting = starting
        self._turn = asyncio.Lock()
        self._asked = self._answered = -inf
        self._known: dict[str, Any] = {"url": url, "state": "down", "problem": "not asked yet"}

    async def look(self) -> dict[str, Any]:
        """Return `state` (ready, starting or down), with the problem in words."""
        async with self._turn:  # several requests at once ask the host once
            if time.monotonic() - self._asked >= _HOST_FRESH_S:
                await self._ask_host()
                self._asked = time.monotonic()
        # A host does not answer while it starts.
        if self._known["state"] == "down" and (words := self._starting()):
            return self._known | {"state": "starting", "problem": words}
        return self._known

    async def _ask_host(self) -> None:
        try:
            async with asyncio.timeout(_HOST_LIMIT_S):
                info, loaded = await self._host.describe(), await self._host.loaded()
        except (HostError, TimeoutError) as error:
            # A host that answered a moment ago is busy, not down.
            if time.monotonic() - self._answered > _HOST_PATIENCE_S:
                problem = error.problem if isinstance(error, HostError) else "it does not answer"
                self._known = {"url": self._url, "state": "down", "problem": problem}
            return
        self._answered = time.monotonic()
        about = {"url": self._url, "state": "ready", "loaded": sorted(loaded)}
        self._known = about | msgspec.to_builtins(info)


class LiveParts:
    """Implements the web surfaces' `Live` port."""

    def __init__(  # noqa: PLR0913 - one argument a part
        self,
        *,
        services: Callable[[], Mapping[str, str | None]],
        policies: PolicyBook,
        rollouts: RolloutService,
        publisher: SeenPublisher,
        host: HostWatch,
        ingest: IngestService | None,
        meters: Mapping[str, Meter],
        decisions: Callable[[], Mapping[str, Decision]],
        restoration: Restoration,
        notices: Callable[[], Sequence[StatusProblem]] = list,
    ) -> None:
        self.started_at = datetime.now(UTC)
        self._services = services
        self._policies = policies
        self._rollouts = rollouts
        self._publisher = publisher
        self._host = host
        self._ingest = ingest
        self._meters = meters
        self._decisions = decisions
        self._restoration = restoration
        self._notices = notices

    async def look(self) -> LiveFacts:
        ingest = await self._ingest.status() if self._ingest else None
        host = await self._host.look()
        return LiveFacts(
            started_at=self.started_at,
            parts=[
                *self._service_parts(),
                _ingest_part(ingest),
                _host_part(host),
                self._gateway_part(),
                capture_part(self._publisher.states_now, datetime.now(UTC)),
                PartState(part="restored", problem=self._restoration.problem),
            ],
            policies=[
                PolicyState(
                    model=version.model,
                    version=version.version,
                    path=version.path,
                    sha256=version.sha256,
                    loaded_at=version.loaded_at,
                    yaml=version.yaml,
                )
                for version in self._policies.all()
            ],
            problems=[*self._list_problems(), *_topic_problems(ingest)],
            gateways=list(self._publisher.seen.values()),
            ingest=_ingest_document(ingest),
            meters=dict(self._meters),
            host=host,
            triggers={model: found.reason for model, found in self._decisions().items()},
            restore=self._restoration.document(),
        )

    def _service_parts(self) -> list[PartState]:
        found = dict(self._services())
        if (failure := self._policies.failure) is not None:
            found["policies"] = found.get("policies") or f"{failure.where}: {failure.problem}"
        return [PartState(part=name, problem=text) for name, text in found.items()]

    def _gateway_part(self) -> PartState:
        """Ready once every gateway has the table in force."""
        tables = self._rollouts.tables
        problem = self._publisher.problem
        if tables.table is None:
            problem = problem or "no route table yet"
        elif problem is None and tables.table.epoch not in tables.published_at:
            problem = f"table {tables.table.epoch} is not in force yet"
        return PartState(part="gateway", problem=problem)

    def _list_problems(self) -> list[StatusProblem]:
        wrong = [
            StatusProblem(
                level="warning",
                what=f"{error.where}: {error.problem}; the last good version stays in force",
                remedy=error.remedy,
            )
            for error in self._policies.problems()
        ]
        refused = [
            StatusProblem(
                level="error", what=f"{name} is not served: {text}", remedy="See vLLM's log"
            )
            for name, text in self._rollouts.loader.problems.items()
        ]
        held = [
            StatusProblem(
                level="error", what=f"restored store waits: {found.what}", remedy=found.remedy
            )
            for found in self._restoration.findings
            if self._restoration.holds
        ]
        return [*held, *wrong, *refused, *self._lost_rows(), *self._notices()]

    def _lost_rows(self) -> list[StatusProblem]:
        remedy = "Give it memory and a broker that keeps up; see its own /adaptd/metrics"
        return [
            StatusProblem(
                level="error",
                what=f"{name} lost {seen.state.rows_lost} interactions, its memory being full",
                remedy=remedy,
            )
            for name, seen in self._publisher.seen.items()
            if seen.state.rows_lost
        ]


def capture_part(states: Iterable[GatewayState], now: datetime) -> PartState:
    """Ready while every gateway puts its traffic on disk and sends it, short pauses apart."""
    stalled = [
        f"{state.gateway}: {thread.name}: {thread.problem}, since {_moment(thread.since)}"
        for state in states
        for thread in state.threads
        if thread.problem is not None
        and (thread.since is None or now - thread.since >= _THREAD_PATIENCE)
    ]
    return PartState(part="capture", problem="; ".join(stalled) or None)


def _moment(time: datetime | None) -> str:
    return "an unknown time" if time is None else f"{time:%Y-%m-%dT%H:%M:%SZ}"


def _ingest_part(status: IngestStatus | None) -> PartState:
    if status is None or status.state == "running":
        return PartState(part="ingest")
    return PartState(part="ingest", problem=f"{status.state}: {status.problem or 'not yet'}")


def _topic_problems(status: IngestStatus | None) -> list[StatusProblem]:
    faults = status.topic_faults if status else []
    return [
        StatusProblem(
            level="warning", what=f"topic {fault.topic}: {fault.what}", remedy=fault.remedy
        )
        for fault in faults
    ]


def _ingest_document(status: IngestStatus | None) -> dict[str, Any]:
    if status is None:
        return {"source": "http", "state": "running", "problem": None}
    lags = [partition.lag for partition in status.partitions if partition.lag is not None]
    return {
        "source": "kafka",
        "state": status.state,
        "problem": status.problem,
        "lag": sum(lags) if lags else None,
        "last_stored_at": status.last_stored_at,
        "partitions": msgspec.to_builtins(status.partitions),
    }


def _host_part(host: Mapping[str, Any]) -> PartState:
    if host["state"] == "ready":
        return PartState(part="vllm")
    return PartState(part="vllm", problem=f"{host['state']}: {host.get('problem')}")
