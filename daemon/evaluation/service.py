"""The service that takes trained runs to their verdict, on the serving host itself."""

import asyncio
from datetime import UTC, datetime

import structlog

from adaptd.daemon.domain.ports import ReceiptCheck
from adaptd.daemon.domain.receipts import Receipt
from adaptd.daemon.domain.states import AdapterState, RunState, Verdict
from adaptd.daemon.evaluation.comparison import Case, Comparison, MeasuredCandidate, count_items
from adaptd.daemon.evaluation.criteria import Judgement
from adaptd.daemon.evaluation.judge import judge
from adaptd.daemon.evaluation.progress import EvaluationProgress, RunStoppedError
from adaptd.daemon.evaluation.report import make_report
from adaptd.daemon.evaluation.suites import Suite, SuiteError
from adaptd.daemon.stats.alpha_spending import alpha_for
from adaptd.daemon.store.lifecycle.adapters import AdapterRow, AdapterStore
from adaptd.daemon.store.lifecycle.evaluations import (
    Evaluation,
    EvaluationStore,
    Outcome,
    new_evaluation_id,
)
from adaptd.daemon.store.lifecycle.runs import Run, RunStore
from adaptd.daemon.wire.errors import HostError, RefusedError

ACTOR = "evaluation"
RETRY_S = 5.0  # after the host was away or refused
_RUN_TO = {
    Verdict.PASSED: RunState.ACCEPTED,
    Verdict.FAILED: RunState.REJECTED,
    Verdict.INCONCLUSIVE: RunState.INCONCLUSIVE,
}

_log = structlog.get_logger(__name__)


class EvaluationService:
    """Judges one candidate at a time. All state is in the store, so a restart continues.

    1. Retire candidates whose run was stopped.
    2. Check that the host applies the candidate (its swap receipt).
    3. Read the suites, and spend the candidate's part of alpha.
    4. Measure candidate and live on every item.
    5. Judge, check the receipt again, and write verdict, run and adapter in one transaction.

    A request that the host refuses or cannot answer now is tried again, never judged. A candidate
    that does not pass is retired; the rollout unloads versions that are out of use.
    """

    def __init__(
        self,
        comparison: Comparison,
        receipts: ReceiptCheck,
        *,
        runs: RunStore,
        adapters: AdapterStore,
        evaluations: EvaluationStore,
        tick_s: float = 1.0,
    ) -> None:
        self._runs = runs
        self._adapters = adapters
        self._evaluations = evaluations
        self._receipts = receipts
        self._comparison = comparison
        self._tick_s = tick_s

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            is_waiting = await self.tick()
            await asyncio.sleep(RETRY_S if is_waiting else self._tick_s)

    async def tick(self) -> bool:
        """Continue the runs in evaluation, then take the oldest trained one. Safe to repeat.

        Returns True where a run has to wait for the host.
        """
        await self._retire_abandoned()
        begun = await self._runs.in_state(RunState.EVALUATING)
        waiting = [run.run_id for run in begun if not await self._try_run(run)]
        now = datetime.now(UTC)
        run = await self._runs.claim(RunState.TRAINED, RunState.EVALUATING, actor=ACTOR, now=now)
        if run is not None and not await self._try_run(run):
            waiting.append(run.run_id)
        return bool(waiting)

    async def _try_run(self, run: Run) -> bool:
        """Evaluate. False where the run stays in its state and waits for the host."""
        try:
            await self._evaluate_or_fail(run)
        except RunStoppedError:
            _log.info("evaluation_stopped", run_id=run.run_id)
        except (HostError, RefusedError) as error:
            _log.warning("evaluation_waits", run_id=run.run_id, error=str(error))
            waiting = {"stage": "evaluating", "waits_for": str(error)}
            await self._runs.set_progress(run.run_id, waiting)
            return False
        return True

    async def _evaluate_or_fail(self, run: Run) -> None:
        try:
            await self._evaluate_run(run)
        except SuiteError as error:
            await self._end_run(run, RunState.FAILED, AdapterState.RETIRED, reason=f"data: {error}")

    async def _evaluate_run(self, run: Run) -> None:
        adapter = await self._adapters.get(run.adapter or "")
        if adapter.state is not AdapterState.CANDIDATE:
            reason = f"not judged: {adapter.name} is {adapter.state} already"
            await self._end_run(run, RunState.CANCELLED, None, reason=reason)
            return
        if await self._check_receipt(run, adapter) is None:
            return
        case = await self._comparison.prepare(run, adapter)
        progress = EvaluationProgress(
            self._runs, run.run_id, count_items(case), every_s=self._tick_s
        )
        measured = await self._comparison.measure(case, progress)
        judgement = await asyncio.to_thread(judge, case.gate, measured.pairs, case.candidates)
        # Checked again: the scores may come from a process that started after the first receipt.
        if (receipt := await self._check_receipt(run, adapter)) is not None:
            await self._settle_verdict(case, measured, judgement, receipt)

    async def _check_receipt(self, run: Run, adapter: AdapterRow) -> Receipt | None:
        """The receipt that passed. None where it did not: the run is over then."""
        receipt = await self._receipts.check(adapter.name)
        if receipt.passed:
            return receipt
        reason = f"no swap receipt: {receipt.reason}"
        await self._end_run(run, RunState.REJECTED, AdapterState.QUARANTINED, reason=reason)
        return None

    async def _settle_verdict(
        self, case: Case, measured: MeasuredCandidate, judgement: Judgement, receipt: Receipt
    ) -> None:
        verdict, now = judgement.verdict, datetime.now(UTC)
        k = case.candidates[Suite.FRESH]
        evaluation = Evaluation(
            evaluation_id=new_evaluation_id(),
            run_id=case.run.run_id,
            model=case.run.model,
            candidate=case.adapter.name,
            live=measured.live,
            holdout_version=case.holdout_version,
            k=k,
            alpha=alpha_for(k, case.gate.alpha),
            verdict=verdict,
            report=make_report(judgement, measured.pairs, left_out=case.left_out, receipt=receipt),
            policy_version=case.run.policy_version,
            created_at=now,
        )
        outcome = Outcome(
            run_id=case.run.run_id,
            run_to=_RUN_TO[verdict],
            adapter=case.adapter.name,
            adapter_to=None if verdict is Verdict.PASSED else AdapterState.RETIRED,
            reason=judgement.reason,
            evidence={"evaluation_id": evaluation.evaluation_id, "live": measured.live, "k": k},
        )
        await self._evaluations.settle(outcome, evaluation, actor=ACTOR, now=now)
        _log.info(
            "candidate_judged", run_id=outcome.run_id, adapter=outcome.adapter, verdict=verdict, k=k
        )

    async def _end_run(
        self, run: Run, to: RunState, adapter_to: AdapterState | None, *, reason: str
    ) -> None:
        """Close a run without a verdict on its candidate."""
        outcome = Outcome(
            run_id=run.run_id,
            run_to=to,
            adapter=run.adapter or "",
            adapter_to=adapter_to,
            reason=reason,
        )
        await self._evaluations.settle(outcome, actor=ACTOR, now=datetime.now(UTC))
        _log.warning("evaluation_ended_unjudged", run_id=run.run_id, state=to, reason=reason)

    async def _retire_abandoned(self) -> None:
        for name in await self._evaluations.abandoned():
            reason = "its run was stopped"
            await self._adapters.move(name, AdapterState.RETIRED, actor=ACTOR, reason=reason)
