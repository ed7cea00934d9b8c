"""A rollout service's surroundings: store, host and gateway in memory, made-up traffic."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from adaptd.daemon.domain.bases import base_digest
from adaptd.daemon.domain.policies import StoredPolicy
from adaptd.daemon.domain.rollouts import Rollout
from adaptd.daemon.domain.states import AdapterState, RolloutState, RunState, Verdict
from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.rollout.receipts import ReceiptService
from adaptd.daemon.rollout.service import RolloutService
from adaptd.daemon.store.database.database import Connection, Database
from adaptd.daemon.store.lifecycle.adapters import AdapterRow, Origin
from adaptd.daemon.store.lifecycle.evaluations import (
    Evaluation,
    Outcome,
    new_evaluation_id,
)
from adaptd.daemon.store.lifecycle.runs import Run
from adaptd.daemon.wire.routes import Route
from tests.support.fakes import FakeHost, FakePublisher, write_probes
from tests.support.stores import stores_over

T = TypeVar("T")
MODEL = "support"
OPERATOR = {"actor": "ada", "reason": "because"}
_ids = count(1)


class CrashError(Exception):
    """The process ended here."""


class CrashingDatabase(Database):
    """Passes a point before every write and after its commit; the point may raise CrashError."""

    point: Callable[[], None] = staticmethod(lambda: None)

    async def write(self, work: Callable[[Connection], T]) -> T:
        self.point()
        result = await super().write(work)
        self.point()
        return result


def a_policy(model: str, *, guard: Mapping[str, Any], **rules: Any) -> StoredPolicy:
    """A policy whose steps need neither time nor units, and whose feedback is mature at once."""
    step = {"at_least": "0s", "units": 0}
    guarded = {"maturity": "0s", "watch": ["negative", "error"]} | dict(guard)
    steps = [{"weight": 0.05} | step, {"weight": 0.25} | step]
    rollout = {"steps": steps, "guard": guarded} | rules
    text = json.dumps({"version": 1, "model": model, "base": "tiny", "rollout": rollout})
    return StoredPolicy(
        model=model,
        version=1,
        sha256="",
        path=f"{model}.yaml",
        yaml=text,
        loaded_at=_now(),
        applied_at=_now(),
    )


@dataclass
class RolloutWorld:
    """Everything around a service. `service()` makes a new one, as a restart does."""

    database: CrashingDatabase
    folder: Path
    base_dir: Path
    host: FakeHost = field(default_factory=FakeHost)
    publisher: Any = field(default_factory=FakePublisher)
    book: PolicyBook = field(default_factory=PolicyBook)

    def __post_init__(self) -> None:
        self.use()
        self.stores = stores_over(self.database)
        self.rollouts = self.stores.rollouts
        self.adapters = self.stores.adapters
        self.routes = self.stores.routes
        self.runs = self.stores.runs

    def use(self, model: str = MODEL, guard: Mapping[str, Any] | None = None, **rules: Any) -> None:
        """Put a policy in force, changed as said."""
        version = self.book.remember(a_policy(model, guard=guard or {}, **rules))
        assert version is not None
        others = {other.model: other for other in self.book.all()}
        self.book.settle(others | {model: version}, [])

    def service(self, *, lease_s: float = 0.5) -> RolloutService:
        return RolloutService(
            self.stores,
            self.book,
            self.host,
            self.checks(),
            self.publisher,
            bases={"tiny": self.base_dir},
            tick_s=0.02,
            lease_s=lease_s,
        )

    def checks(self) -> ReceiptService:
        """Whoever takes receipts of this host."""
        receipts = self.stores.receipts
        return ReceiptService(self.host, receipts, self.adapters, base_dir=self.base_dir)

    async def accepted(self, model: str = MODEL) -> AdapterRow:
        """A version whose run was accepted by the gate, as better than what is live."""
        run = await self.runs.create(
            model, policy_version=1, trigger={}, start_from=None, actor="test", now=_now()
        )
        row = await self.version(model, run_id=run.run_id)
        for state in (
            RunState.BUILDING,
            RunState.TRAINING,
            RunState.TRAINED,
            RunState.EVALUATING,
        ):
            await self.runs.move(run.run_id, state, actor="test", reason="test", now=_now())
        await self._accept(run, row)
        return row

    async def _accept(self, run: Run, row: AdapterRow) -> None:
        versions = await self.adapters.list(run.model)
        live = next((v.name for v in versions if v.state is AdapterState.LIVE), None)
        evaluation = Evaluation(
            evaluation_id=new_evaluation_id(),
            run_id=run.run_id,
            model=run.model,
            candidate=row.name,
            live=live,
            holdout_version=1,
            k=1,
            alpha=0.03,
            verdict=Verdict.PASSED,
            report={},
            policy_version=1,
            created_at=_now(),
        )
        outcome = Outcome(
            run_id=run.run_id, run_to=RunState.ACCEPTED, adapter=row.name, reason="test"
        )
        await self.stores.evaluations.settle(outcome, evaluation, actor="test", now=_now())

    async def version(self, model: str = MODEL, run_id: str | None = None) -> AdapterRow:
        """A trained version that the host serves as trained."""
        digest = f"{next(_ids):08x}" * 8
        origin = Origin(content_hash=digest, base_digest=base_digest(self.base_dir), run_id=run_id)
        row = await self.adapters.add(model, origin, folder=self.folder, actor="test", now=_now())
        write_probes(Path(row.path), row.name, row.content_hash)
        return row

    async def state(self, row: AdapterRow) -> AdapterState:
        return (await self.adapters.get(row.name)).state

    async def rollout(self, row: AdapterRow) -> Rollout:
        """The newest rollout of a version."""
        return (await self.rollouts.of_candidate(row.name))[0]

    @property
    def route(self) -> Route:
        """What the gateway follows for the alias."""
        assert self.publisher.table is not None
        return self.publisher.table.routes[MODEL]

    def negatives(self, rollout: Rollout, *, live: int, canary: int, weight: float) -> None:
        """That many units whose answer was rated badly, per arm."""
        for arm, number in (("live", live), ("canary", canary)):
            adapter = rollout.candidate if arm == "canary" else rollout.previous
            served = self.ask(rollout, number, arm=arm, adapter=adapter, weight=weight)
            self.complain(*served)

    def ask(self, rollout: Rollout, number: int = 1, **changes: Any) -> list[str]:
        """Answered requests, each of a unit of its own; returns their ids."""
        keys = [f"i{next(_ids)}" for _ in range(number)]
        common = {
            "time": _now(),
            "ingested_at": _now(),
            "model": rollout.model,
            "rollout": rollout.rollout_id,
            "status": "ok",
            "trusted": True,
            "source": "test",
        }
        self._insert("interactions", [{"id": key, "unit": key} | common | changes for key in keys])
        return keys

    def complain(self, *interactions: str) -> None:
        """A bad rating of each."""
        now = _now()
        common = {
            "time": now,
            "ingested_at": now,
            "effective_at": now - timedelta(seconds=1),
            "choice": 0,
            "origin": "user",
            "kind": "rating",
            "value": -1.0,
            "trusted": True,
            "source": "test",
        }
        rows = [{"id": f"f{next(_ids)}", "interaction": key} | common for key in interactions]
        self._insert("feedback", rows)

    def _insert(self, table: str, rows: list[dict[str, Any]]) -> None:
        names = ", ".join(f'"{name}"' for name in rows[0])
        marks = ", ".join(f"({', '.join('?' for _ in row)})" for row in rows)
        values = [value for row in rows for value in row.values()]
        self.database.write_now(
            lambda c: c.execute(f"INSERT INTO {table} ({names}) VALUES {marks}", values)
        )


async def advance(service: RolloutService, times: int = 1) -> None:
    """What the service's loops do, by hand: look after the host, then decide."""
    for _ in range(times):
        await service.loader.tick()
        await service.tick()


async def begun(world: RolloutWorld) -> RolloutService:
    service = world.service()
    await service.begin()
    return service


async def on_first_step(world: RolloutWorld) -> tuple[RolloutService, AdapterRow, Rollout]:
    row = await world.accepted()
    service = await begun(world)
    await advance(service, 3)
    rollout = await world.rollout(row)
    assert (rollout.state, rollout.step) == (RolloutState.STEP, 1)
    return service, row, rollout


async def promoted(world: RolloutWorld) -> tuple[RolloutService, AdapterRow]:
    """A version that went live on its evidence."""
    service, row, rollout = await on_first_step(world)
    world.negatives(rollout, live=40, canary=2, weight=0.25)
    await advance(service, 4)
    assert await world.state(row) is AdapterState.LIVE
    return service, row


def is_over(rollout: Rollout) -> bool:
    return rollout.state.is_final or rollout.state == RolloutState.LIVE


def _now() -> datetime:
    return datetime.now(UTC)
