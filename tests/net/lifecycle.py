"""Snapshots, runs, versions, verdicts, rollouts and routes of the installation."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from adaptd.daemon.dataset.groups import message_key
from adaptd.daemon.dataset.snapshot import Contents, SuiteRow, train_row, write_snapshot
from adaptd.daemon.domain.receipts import Receipt
from adaptd.daemon.domain.rollouts import Frozen, LatencyLimit, Rollout, Waiver
from adaptd.daemon.domain.scores import Score
from adaptd.daemon.domain.states import AdapterState, RolloutState, RunState, Verdict
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.lifecycle.adapters import AdapterRow, AdapterStore, Origin
from adaptd.daemon.store.lifecycle.evaluations import Evaluation, EvaluationStore, Outcome
from adaptd.daemon.store.lifecycle.receipts import ReceiptStore
from adaptd.daemon.store.lifecycle.rollouts import AdapterMove, Change, RolloutMove, RolloutStore
from adaptd.daemon.store.lifecycle.runs import Run, RunStore
from adaptd.daemon.store.lifecycle.snapshots import (
    HoldoutStore,
    Member,
    Snapshot,
    SnapshotStore,
    fresh_suite,
)
from adaptd.daemon.store.lifecycle.triggers import TriggerStore
from adaptd.daemon.training import adapter_files
from adaptd.daemon.training.adapter_files import CONFIG, PROBES, WEIGHTS, Manifest
from adaptd.daemon.wire.routes import Route, RouteTable
from tests.support.clock import Clock

DAEMON, OPERATOR = "daemon", "operator:ada"
BASE_DIGEST = "b" * 64
_TO_TRAINED = (RunState.BUILDING, RunState.TRAINING, RunState.TRAINED)


class Lifecycle:
    """Writes rows in the order in which the daemon would."""

    def __init__(self, database: Database, home: Path, clock: Clock) -> None:
        self.home, self.clock = home, clock
        self.runs, self.adapters = RunStore(database), AdapterStore(database)
        self.snapshots, self.holdouts = SnapshotStore(database), HoldoutStore(database)
        self.evaluations, self.rollouts = EvaluationStore(database), RolloutStore(database)
        self.receipts, self.triggers = ReceiptStore(database), TriggerStore(database)
        self.routes: dict[str, Route] = {}
        self.paths: dict[str, str] = {}
        self.epoch = 0

    async def leave_support(self) -> Rollout:
        """Two promoted versions, a canary on its first step, and a run in training after them.

        Returns the rollout of the canary.
        """
        first = await self.promoted("a", "s")
        second = await self.promoted("b", "s", before=first)
        third = await self.accepted("support", "c", "s", live=second.name)
        rollout = await self.canary(third, live=second.name)
        await self.failed("support")
        run = await self.started("support", "s", start_from=second.name)
        await self.runs.claim(RunState.BUILDING, RunState.TRAINING, actor=DAEMON, now=self.clock())
        folder = self.home / "runs" / run.run_id
        await self.runs.begin_attempt(run.run_id, directory=folder, micro_batch=4)
        await self.runs.set_process(run.run_id, 4_000_001, folder)
        progress = {"type": "progress", "phase": "training", "step": 7, "total": 12, "loss": 1.25}
        await self.runs.set_progress(run.run_id, progress)
        return rollout

    async def leave_billing(self) -> None:
        """A verdict of each other kind, an aborted rollout, crons, and a run in the queue."""
        rejected = await self.rejected("billing", "d", "b")
        await self.judged("billing", "e", "b", Verdict.INCONCLUSIVE, RunState.INCONCLUSIVE)
        await self.aborted(rejected)
        await self.cancelled("billing")
        for job in ("0 3 * * *", "0 4 * * 1"):
            await self.triggers.begin_cron("billing", job, now=self.clock())
        await self.triggers.fire_cron("billing", "0 3 * * *", now=self.clock())
        await self.triggers.begin_cron("support", "0 3 * * *", now=self.clock())
        await self.run("billing")

    async def run(self, model: str, *, start_from: str | None = None) -> Run:
        trigger = {"new_examples": 100, "found": 120}
        return await self.runs.create(
            model,
            policy_version=1,
            trigger=trigger,
            start_from=start_from,
            actor=DAEMON,
            now=self.clock(),
        )

    async def started(self, model: str, mark: str, *, start_from: str | None = None) -> Run:
        """A run with its snapshot, which waits for the trainer."""
        run = await self.run(model, start_from=start_from)
        await self.runs.claim(RunState.QUEUED, RunState.BUILDING, actor=DAEMON, now=self.clock())
        snapshot = await self.snapshot(model, mark, f"snapshot-{run.run_id}")
        await self.runs.set_snapshot(run.run_id, snapshot.snapshot_id)
        return run

    async def snapshot(self, model: str, mark: str, name: str) -> Snapshot:
        version, _ = await self.holdouts.current(model, now=self.clock())
        directory = self.home / "snapshots" / name
        lineage = _lineage(mark)
        manifest = write_snapshot(directory, _contents(lineage), {"model": model})
        snapshot = Snapshot(
            snapshot_id=name,
            model=model,
            policy_version=1,
            as_of=self.clock(),
            content_hash=manifest["content_hash"],
            path=str(directory),
            train_rows=2,
            holdout_rows=1,
            golden_rows=1,
            holdout_version=version.version,
            created_at=self.clock(),
            manifest=manifest,
        )
        await self.snapshots.add(snapshot, lineage)
        members = [
            Member(member=key, group=row["group"], side=row["side"], holdout_version=held)
            for row in lineage
            for held in [version.version if row["side"] == "holdout" else None]
            for key in (f"c:{row['interaction']}", message_key(f"words of {row['interaction']}"))
        ]
        await self.holdouts.assign(model, members, now=self.clock())
        return snapshot

    async def trained(self, model: str, letter: str, mark: str) -> tuple[Run, AdapterRow]:
        """A finished run, and its version sealed in its place."""
        run = await self.started(model, mark)
        await self.runs.move(
            run.run_id, RunState.TRAINING, actor=DAEMON, reason="claimed", now=self.clock()
        )
        row = await self.version(model, letter, await self.runs.get(run.run_id))
        await self.runs.move(
            run.run_id, RunState.TRAINED, actor=DAEMON, reason="trained", now=self.clock()
        )
        return run, row

    async def version(self, model: str, letter: str, run: Run) -> AdapterRow:
        scratch = self.home / "runs" / run.run_id / ".adapter"
        scratch.mkdir(parents=True)
        weights, config = letter.encode() * 500, {"r": 8, "lora_alpha": 16, "target_modules": ["q"]}
        digest = adapter_files.content_hash(weights, config)
        origin = Origin(
            content_hash=digest,
            base_digest=BASE_DIGEST,
            run_id=run.run_id,
            snapshot_id=run.snapshot_id,
        )
        row = await self.adapters.add(
            model, origin, folder=self.home / "adapters", actor=DAEMON, now=self.clock()
        )
        (scratch / WEIGHTS).write_bytes(weights)
        (scratch / CONFIG).write_text(json.dumps(config))
        (scratch / PROBES).write_text(json.dumps({"probes": [{"ids": [1, 2], "base": [0, -1]}]}))
        staged = adapter_files.seal_adapter(scratch, _manifest(scratch, digest, run))
        adapter_files.place_adapter(staged, Path(row.path))
        self.paths[row.name] = row.path
        return row

    async def judged(
        self,
        model: str,
        letter: str,
        mark: str,
        verdict: Verdict,
        state: RunState,
        *,
        live: str | None = None,
    ) -> AdapterRow:
        """A version, measured on both suites and with a verdict."""
        run, row = await self.trained(model, letter, mark)
        await self.runs.claim(RunState.TRAINED, RunState.EVALUATING, actor=DAEMON, now=self.clock())
        held, _ = await self.holdouts.current(model, now=self.clock())
        suite = fresh_suite(held.version)
        k = await self.holdouts.score(model, suite, row.name, now=self.clock())
        for adapter, nll in ((row.name, 1.5), (live, 2.5)):
            scores = {f"{mark}-item": Score(exact=nll < 2, nll=nll, reference_tokens=3)}
            await self.evaluations.add_scores(adapter, suite, scores)
        evaluation = Evaluation(
            evaluation_id=f"eval-{letter * 10}",
            run_id=run.run_id,
            model=model,
            candidate=row.name,
            live=live,
            holdout_version=held.version,
            k=k,
            alpha=0.05 / 2**k,
            verdict=verdict,
            report={"criteria": [{"metric": "exact_match", "on": "fresh", "p": 0.01}]},
            policy_version=1,
            created_at=self.clock(),
        )
        outcome = Outcome(run_id=run.run_id, run_to=state, adapter=row.name, reason=str(verdict))
        await self.evaluations.settle(outcome, evaluation, actor=DAEMON, now=self.clock())
        return row

    async def accepted(
        self, model: str, letter: str, mark: str, *, live: str | None = None
    ) -> AdapterRow:
        return await self.judged(model, letter, mark, Verdict.PASSED, RunState.ACCEPTED, live=live)

    async def rejected(self, model: str, letter: str, mark: str) -> AdapterRow:
        return await self.judged(model, letter, mark, Verdict.FAILED, RunState.REJECTED)

    async def failed(self, model: str) -> None:
        run = await self.run(model)
        await self.runs.move(
            run.run_id,
            RunState.FAILED,
            actor=DAEMON,
            reason="nan: the loss of step 3 is nan",
            evidence={"cause": "nan"},
            now=self.clock(),
        )

    async def cancelled(self, model: str) -> None:
        run = await self.run(model)
        await self.runs.move(
            run.run_id, RunState.CANCELLED, actor=OPERATOR, reason="not now", now=self.clock()
        )

    async def promoted(
        self, letter: str, mark: str, *, before: AdapterRow | None = None
    ) -> AdapterRow:
        """A version that went live over a canary, in place of the one before."""
        live = before.name if before else None
        row = await self.accepted("support", letter, mark, live=live)
        rollout = await self.canary(row, live=live)
        ended = [r for r in await self.rollouts.unfinished() if r.state is RolloutState.LIVE]
        moves = [RolloutMove(rollout, _with(rollout, RolloutState.LIVE, live_at=self.clock()))]
        moves += [
            RolloutMove(old, _with(old, RolloutState.SUPERSEDED, finished_at=self.clock()))
            for old in ended
        ]
        adapters = [AdapterMove(live, AdapterState.LAST_GOOD)] if live else []
        adapters.append(AdapterMove(row.name, AdapterState.LIVE))
        route = Route(alias="support", live=row.name, last_good=live, holdback=0.05, salt="s")
        await self.decide(moves, adapters, route, "promoted")
        return row

    async def canary(self, row: AdapterRow, *, live: str | None) -> Rollout:
        """A rollout on its first step, its version proven on the server."""
        rollout = Rollout(
            model=row.model,
            candidate=row.name,
            previous=live,
            run_id=row.run_id,
            approved_by="policy",
            policy_version=1,
            created_at=self.clock(),
        )
        await self.rollouts.create(rollout, actor=DAEMON, reason="accepted")
        await self.receipts.add(self.receipt(row.name, passed=True))
        frozen = Frozen(latency_limits=[LatencyLimit(5, 31.5)])
        changes = {"step": 1, "step_started_at": self.clock(), "frozen": frozen}
        after = _with(rollout, RolloutState.STEP, waivers=[Waiver.EVIDENCE], **changes)
        route = Route(
            alias=row.model,
            live=live,
            canary=row.name,
            canary_on=True,
            weight=0.25,
            salt="rollout-0123456789",
            rollout=rollout.rollout_id,
            base_digest=BASE_DIGEST,
        )
        moves = [AdapterMove(row.name, AdapterState.CANARY)]
        await self.decide([RolloutMove(rollout, after)], moves, route, "verified")
        return await self.rollouts.get(rollout.rollout_id)

    async def aborted(self, row: AdapterRow) -> None:
        """An operator forced a version and took it back, which set it apart."""
        rollout = Rollout(
            model=row.model,
            candidate=row.name,
            override_reason="to see",
            policy_version=1,
            created_at=self.clock(),
        )
        await self.rollouts.create(rollout, actor=OPERATOR, reason="to see")
        await self.receipts.add(self.receipt(row.name, passed=False))
        after = _with(rollout, RolloutState.ABORTED, finished_at=self.clock())
        moves = [AdapterMove(row.name, AdapterState.QUARANTINED)]
        route = Route(alias=row.model)
        await self.decide([RolloutMove(rollout, after)], moves, route, "no receipt")

    async def decide(
        self,
        rollouts: Sequence[RolloutMove],
        adapters: Sequence[AdapterMove],
        route: Route,
        reason: str,
    ) -> None:
        self.epoch += 1
        self.routes |= {route.alias: route}
        change = Change(
            rollouts=list(rollouts),
            adapters=list(adapters),
            table=RouteTable(
                epoch=self.epoch, base="tiny", routes=dict(self.routes), paths=dict(self.paths)
            ),
            actor=DAEMON,
            reason=reason,
            evidence={"units": 40},
        )
        await self.rollouts.apply(change, now=self.clock())

    def receipt(self, adapter: str, *, passed: bool) -> Receipt:
        return Receipt(
            adapter=adapter,
            instance="instance-1",
            passed=passed,
            reason=None if passed else "the slope is 0.02",
            slope=1.0 if passed else 0.02,
            residual_ratio=0.1,
            effect_ratio=12.0,
            report={"probes": 8},
            created_at=self.clock(),
        )


def _with(rollout: Rollout, state: RolloutState, **changes: Any) -> Rollout:
    return msgspec.structs.replace(rollout, state=state, **changes)


def _lineage(mark: str) -> list[dict[str, str]]:
    """Two rows to train on and one to measure on, of events that are stored."""
    return [
        {
            "side": side,
            "interaction": f"{mark}-{number}",
            "feedback": f"{mark}f-{number}",
            "user": "ada",
            "group": f"{mark}-group-{number}",
        }
        for number, side in enumerate(("train", "train", "holdout"))
    ]


def _contents(lineage: list[dict[str, str]]) -> Contents:
    held = [row for row in lineage if row["side"] == "holdout"]
    return Contents(
        train=[
            train_row(
                [1, 2, 3],
                [7, 2],
                interaction=row["interaction"],
                feedback=row["feedback"],
                group=row["group"],
            )
            for row in lineage
            if row["side"] == "train"
        ],
        fresh=[SuiteRow(row["feedback"], row["group"], [1, 2, 3], [7], "seven") for row in held],
        golden=[SuiteRow("golden-1", "golden-1", [4, 5, 6], [8], "eight")],
    )


def _manifest(folder: Path, digest: str, run: Run) -> Manifest:
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (CONFIG, PROBES, WEIGHTS)
    }
    return Manifest(
        content_hash=digest,
        base_digest=BASE_DIGEST,
        run_id=run.run_id,
        model=run.model,
        base="tiny",
        parent=None,
        snapshot_id=run.snapshot_id or "",
        snapshot_hash="c" * 64,
        seed=1,
        job={"steps": 12},
        versions={"torch": "2.10"},
        figures={"loss_last": 0.5},
        files=files,
    )
