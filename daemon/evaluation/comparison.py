"""The comparison of a candidate with the live version: the gate, and the same items for both."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import structlog

from adaptd.daemon.domain.ports import AdapterHost
from adaptd.daemon.domain.scores import Score
from adaptd.daemon.domain.versions import live_version
from adaptd.daemon.evaluation.criteria import Gate
from adaptd.daemon.evaluation.measure import IN_FLIGHT, Bench, fits
from adaptd.daemon.evaluation.pairs import Pair
from adaptd.daemon.evaluation.progress import EvaluationProgress
from adaptd.daemon.evaluation.suites import Item, Suite, read_suites, suite_digest
from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.store.lifecycle.adapters import AdapterRow, AdapterStore
from adaptd.daemon.store.lifecycle.evaluations import EvaluationStore
from adaptd.daemon.store.lifecycle.runs import Run
from adaptd.daemon.store.lifecycle.snapshots import HoldoutStore, SnapshotStore, fresh_suite

Scores = Mapping[str, Score]  # by the items' keys
_log = structlog.get_logger(__name__)


class Case(NamedTuple):
    """A candidate and all it is judged by.

    `left_out` counts the items that are too long for the host. `candidates` counts the candidates
    scored on each suite's items. `number_format` is the one in which the host computes.
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
    """The pairs of every suite. `live` is the version compared with; None is the base."""

    live: str | None
    pairs: Mapping[Suite, Sequence[Pair]]


class Comparison:
    """Prepares cases, and measures both versions on their items."""

    def __init__(
        self,
        policies: PolicyBook,
        host: AdapterHost,
        *,
        snapshots: SnapshotStore,
        holdouts: HoldoutStore,
        adapters: AdapterStore,
        evaluations: EvaluationStore,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._policies = policies
        self._host = host
        self._snapshots = snapshots
        self._holdouts = holdouts
        self._adapters = adapters
        self._bench = Bench(host, evaluations, in_flight=in_flight)

    async def prepare(self, run: Run, adapter: AdapterRow) -> Case:
        """Read the suites and spend the candidate's part of alpha. A repeat spends nothing more.

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
            candidates=await self._count_candidates(
                run, adapter.name, snapshot.holdout_version, suites
            ),
            max_model_len=max_model_len,
            number_format=info.dtype or f"unknown on {info.instance}",
        )

    async def measure(self, case: Case, progress: EvaluationProgress) -> MeasuredCandidate:
        """Score both versions on every item.

        A live version that changes meanwhile is measured again, because the candidate would replace
        the new one. The candidate's own scores are kept.
        """
        while True:
            live = await self.live_of(case.run.model)
            live_scores = await self._score_version(live, case, progress)
            scores = await self._score_version(case.adapter.name, case, progress)
            if live == await self.live_of(case.run.model):
                pairs = {
                    suite: _pair_scores(items, scores[suite], live_scores[suite])
                    for suite, items in case.suites.items()
                }
                return MeasuredCandidate(live, pairs)
            _log.info("live_changed_while_measured", run_id=case.run.run_id, live=live)

    async def live_of(self, model: str) -> str | None:
        """The alias's live version; None is the base."""
        live = live_version(await self._adapters.list(model), model)
        return live.name if live else None

    async def _score_version(
        self, name: str | None, case: Case, progress: EvaluationProgress
    ) -> Mapping[Suite, Scores]:
        # Scores hold for the base's weights and the host's number format, so both are part of the
        # name that scores are kept under. A host that does not report its format has a name for
        # each of its processes.
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

    async def _count_candidates(
        self, run: Run, candidate: str, version: int, suites: Mapping[Suite, Sequence[Item]]
    ) -> dict[Suite, int]:
        names = {Suite.FRESH: fresh_suite(version)}
        # The golden file counts by its content: an edited file is another test.
        if golden := suites[Suite.GOLDEN]:
            names[Suite.GOLDEN] = f"golden:{suite_digest(golden)}"
        now = datetime.now(UTC)
        return {
            suite: await self._holdouts.score(run.model, name, candidate, now=now)
            for suite, name in names.items()
        }


def count_items(case: Case) -> int:
    """Measurements of both versions over all suites, equal items once."""
    return 2 * sum(len({item.key for item in items}) for items in case.suites.values())


def _pair_scores(items: Sequence[Item], candidate: Scores, live: Scores) -> list[Pair]:
    return [Pair(item.item, item.cluster, candidate[item.key], live[item.key]) for item in items]
