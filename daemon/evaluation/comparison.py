"""Puts a candidate beside the live version: what to judge it by, and the same items for both."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import structlog

from adaptd.daemon.domain.ports import AdapterHost
from adaptd.daemon.domain.states import AdapterState
from adaptd.daemon.evaluation.criteria import Gate
from adaptd.daemon.evaluation.measure import Bench, fits
from adaptd.daemon.evaluation.pairs import Pair, Suite
from adaptd.daemon.evaluation.progress import EvaluationProgress
from adaptd.daemon.evaluation.report import Scores, pairs_of
from adaptd.daemon.evaluation.suites import Item, read_suites, suite_digest
from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.lifecycle.adapters import AdapterRow, AdapterStore
from adaptd.daemon.store.lifecycle.evaluations import EvaluationStore
from adaptd.daemon.store.lifecycle.runs import Run
from adaptd.daemon.store.lifecycle.snapshots import HoldoutStore, SnapshotStore, fresh_suite

_log = structlog.get_logger(__name__)


class Case(NamedTuple):
    """A candidate and all it is judged by. `candidates` counts those scored on each suite's items.

    `left_out` counts the items that are too long for the host, `number_format` is what it
    computes in.
    """

    run: Run
    adapter: AdapterRow
    gate: Gate
    holdout_version: int
    suites: Mapping[Suite, Sequence[Item]]
    left_out: Mapping[Suite, int]
    candidates: Mapping[Suite, int]
    max_model_len: int
    number_format: str


class MeasuredCandidate(NamedTuple):
    """`live` is the version compared with; None is the base."""

    live: str | None
    pairs: Mapping[Suite, Sequence[Pair]]


class Comparison:
    """Prepares cases and measures them."""

    def __init__(
        self, database: Database, policies: PolicyBook, host: AdapterHost, *, in_flight: int
    ) -> None:
        self._policies = policies
        self._host = host
        self._snapshots = SnapshotStore(database)
        self._holdouts = HoldoutStore(database)
        self._adapters = AdapterStore(database)
        self._bench = Bench(host, EvaluationStore(database), in_flight=in_flight)

    async def prepare(self, run: Run, adapter: AdapterRow) -> Case:
        """Read the suites and spend the candidate's part of alpha; a repeat spends nothing more.

        Raises:
            SuiteError: the snapshot's files cannot be read.
            HostError: the host is away.
            RefusedError: this release cannot read the policy version, or the snapshot is gone.
        """
        policy = self._policies.version(run.model, run.policy_version).policy
        snapshot = await self._snapshots.get(run.snapshot_id or "")
        info = await self._host.describe()
        max_model_len = info.max_model_len
        found = await asyncio.to_thread(read_suites, Path(snapshot.path))
        suites = {s: [i for i in items if fits(i, max_model_len)] for s, items in found.items()}
        return Case(
            run=run,
            adapter=adapter,
            gate=Gate.of(policy),
            holdout_version=snapshot.holdout_version,
            suites=suites,
            left_out={s: len(found[s]) - len(items) for s, items in suites.items()},
            candidates=await self._count(run, adapter.name, snapshot.holdout_version, suites),
            max_model_len=max_model_len,
            number_format=info.dtype or f"unknown on {info.instance}",
        )

    async def measure(self, case: Case, progress: EvaluationProgress) -> MeasuredCandidate:
        """Score both versions on every item.

        Where live changes meanwhile the new one is measured too: it is what the candidate would
        replace. The candidate's own scores are kept.
        """
        while True:
            live = await self.live_of(case.run.model)
            theirs = await self._scores(live, case, progress)
            ours = await self._scores(case.adapter.name, case, progress)
            if live == await self.live_of(case.run.model):
                pairs = {s: pairs_of(case.suites[s], ours[s], theirs[s]) for s in case.suites}
                return MeasuredCandidate(live, pairs)
            _log.info("live changed while it was measured", run_id=case.run.run_id, live=live)

    async def live_of(self, model: str) -> str | None:
        """The alias's live version; None is the base."""
        rows = await self._adapters.list(model)
        live = [row for row in rows if row.state is AdapterState.LIVE]
        return max(live, key=lambda row: row.number).name if live else None

    async def _scores(
        self, name: str | None, case: Case, progress: EvaluationProgress
    ) -> Mapping[Suite, Scores]:
        """Scores count for the base's weights and the host's number format: both name their place.

        A host that does not say in which format it computes has a place for each of its processes.
        """
        where = f"{case.adapter.base_digest[:12]}:{case.number_format}"
        return {
            suite: await self._bench.measure(
                name,
                f"{suite}@{where}",
                items,
                max_model_len=case.max_model_len,
                listener=progress,
            )
            for suite, items in case.suites.items()
        }

    async def _count(
        self, run: Run, candidate: str, version: int, suites: Mapping[Suite, Sequence[Item]]
    ) -> dict[Suite, int]:
        """The golden file counts by its content: an edited one is another test."""
        names = {Suite.FRESH: fresh_suite(version)}
        if golden := suites[Suite.GOLDEN]:
            names[Suite.GOLDEN] = f"golden:{suite_digest(golden)}"
        now = datetime.now(UTC)
        return {
            suite: await self._holdouts.score(run.model, name, candidate, now=now)
            for suite, name in names.items()
        }


def items_of(case: Case) -> int:
    """Measurements of both versions over all suites, equal items once."""
    return 2 * sum(len({item.key for item in items}) for items in case.suites.values())
