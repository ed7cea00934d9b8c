"""An evaluation's surroundings: store and host in memory, a snapshot on disk, chosen answers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from adaptd.daemon.dataset.snapshot import Contents, SuiteRow, write_snapshot
from adaptd.daemon.domain.bases import base_digest
from adaptd.daemon.domain.policies import StoredPolicy
from adaptd.daemon.domain.states import AdapterState, RunState
from adaptd.daemon.evaluation.comparison import Comparison
from adaptd.daemon.evaluation.service import EvaluationService
from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.rollout.receipts import ReceiptService
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.lifecycle.adapters import AdapterRow, Origin
from adaptd.daemon.store.lifecycle.evaluations import Evaluation
from adaptd.daemon.store.lifecycle.runs import Run
from adaptd.daemon.store.lifecycle.snapshots import Snapshot
from tests.support.fakes import FakeHost, write_probes
from tests.support.stores import stores_over

MODEL = "support"
RIGHT, WRONG = "refund", "lost_parcel"
GATE = {
    "must_improve": [{"metric": "exact_match", "on": "fresh"}],
    "must_not_drop": [{"metric": "exact_match", "on": "golden", "by": "20 points"}],
}
_ids = count(1)


class AnsweringHost(FakeHost):
    """`right[name]` is the share of the items, the same ones always, that a version gets right."""

    def __init__(self) -> None:
        super().__init__()
        self.right: dict[str | None, float] = {}
        self.asked: list[tuple[str | None, int]] = []
        self.before_answer: Callable[[], None] = lambda: None
        self.answer = self._answer

    def _answer(self, model: str | None, prompt: Sequence[int]) -> str:
        self.before_answer()
        self.asked.append((model, prompt[0]))
        return f" {RIGHT} " if 37 * prompt[0] % 100 < 100 * self.right.get(model, 0.0) else WRONG

    def asked_of(self, model: str | None) -> int:
        return sum(1 for name, _ in self.asked if name == model)


def suite_rows(suite: str, items: int) -> list[SuiteRow]:
    """Items whose prompt opens with their number, so that answers can be chosen by it."""
    kind = 5000 if suite == "golden" else 6000
    return [
        SuiteRow(
            item=f"{suite}-{number}",
            cluster=f"group-{number}",
            prompt_ids=[number, kind, 7],
            reference_ids=[11, 12, 2],
            reference=RIGHT,
        )
        for number in range(items)
    ]


@dataclass
class EvaluationWorld:
    """The surroundings of a service. `service()` makes a new service, as a restart does."""

    database: Database
    folder: Path
    base_dir: Path
    host: Any = field(default_factory=AnsweringHost)  # or a real one
    book: PolicyBook = field(default_factory=PolicyBook)
    in_flight: int = 16
    gate: Mapping[str, Any] = field(default_factory=lambda: GATE)

    def __post_init__(self) -> None:
        self.stores = stores_over(self.database)
        self.runs = self.stores.runs
        self.adapters = self.stores.adapters
        self.evaluations = self.stores.evaluations
        self.holdouts = self.stores.holdouts
        self.use(self.gate)

    def use(self, gate: Mapping[str, Any]) -> None:
        """Put a policy with this gate in force, as version 1."""
        curate = {"holdout": {"at_least": 40, "golden": "golden.jsonl"}}
        policy = {"version": 1, "model": MODEL, "base": "tiny", "gate": gate, "curate": curate}
        stored = StoredPolicy(
            model=MODEL,
            version=1,
            sha256="",
            path="support.yaml",
            yaml=json.dumps(policy),
            loaded_at=now(),
            applied_at=now(),
        )
        version = self.book.remember(stored)
        assert version is not None
        self.book.settle({MODEL: version}, [])

    def service(self) -> EvaluationService:
        receipts = ReceiptService(
            self.host, self.stores.receipts, self.adapters, base_dir=self.base_dir
        )
        comparison = Comparison(
            self.book,
            self.host,
            snapshots=self.stores.snapshots,
            holdouts=self.holdouts,
            adapters=self.adapters,
            evaluations=self.evaluations,
            in_flight=self.in_flight,
        )
        return EvaluationService(
            comparison,
            receipts,
            runs=self.runs,
            adapters=self.adapters,
            evaluations=self.evaluations,
            tick_s=0.02,
        )

    async def snapshot(self, *, fresh: int = 60, golden: int = 60) -> Snapshot:
        return await self.snapshot_of(suite_rows("fresh", fresh), suite_rows("golden", golden))

    async def snapshot_of(self, fresh: list[SuiteRow], golden: list[SuiteRow]) -> Snapshot:
        name = f"snap-{next(_ids)}"
        contents = Contents(train=[], fresh=fresh, golden=golden)
        manifest = write_snapshot(self.folder / name, contents, {})
        version, _ = await self.holdouts.current(MODEL, now=now())
        snapshot = Snapshot(
            snapshot_id=name,
            model=MODEL,
            policy_version=1,
            as_of=now(),
            content_hash=manifest["content_hash"],
            path=str(self.folder / name),
            train_rows=0,
            holdout_rows=len(fresh),
            golden_rows=len(golden),
            holdout_version=version.version,
            created_at=now(),
            manifest=manifest,
        )
        await self.stores.snapshots.add(snapshot, [])
        return snapshot

    async def trained(self, *, right: float = 0.9, snapshot: Snapshot | None = None) -> Run:
        """A trained run whose candidate answers that share of the items rightly."""
        snapshot = snapshot or await self.snapshot()
        run = await self.runs.create(
            MODEL, policy_version=1, trigger={}, start_from=None, actor="test", now=now()
        )
        await self.runs.set_snapshot(run.run_id, snapshot.snapshot_id)
        row = await self.version(right=right, run_id=run.run_id)
        for state in (RunState.BUILDING, RunState.TRAINING, RunState.TRAINED):
            await self.runs.move(run.run_id, state, actor="test", reason="test", now=now())
        return await self.runs.get(run.run_id if row.run_id else "")

    async def version(self, *, right: float, run_id: str | None = None) -> AdapterRow:
        """A trained version that the host serves as trained."""
        digest = f"{next(_ids):08x}" * 8
        origin = Origin(content_hash=digest, base_digest=base_digest(self.base_dir), run_id=run_id)
        row = await self.adapters.add(MODEL, origin, folder=self.folder, actor="test", now=now())
        write_probes(Path(row.path), row.name, row.content_hash)
        if isinstance(self.host, AnsweringHost):
            self.host.right[row.name] = right
        return row

    async def live(self, *, right: float) -> AdapterRow:
        """A version that is live and on the host."""
        row = await self.version(right=right)
        await self.host.load(row.name, Path(row.path))
        return await self.adapters.move(row.name, AdapterState.LIVE, actor="test", reason="test")

    async def state(self, run: Run) -> tuple[RunState, AdapterState]:
        """The run's state and its adapter's."""
        found = await self.runs.get(run.run_id)
        return found.state, (await self.adapters.get(found.adapter or "")).state

    async def evaluation(self, run: Run) -> Evaluation:
        (found,) = await self.evaluations.of_run(run.run_id)
        return found


def now() -> datetime:
    return datetime.now(UTC)
