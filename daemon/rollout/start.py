"""Begin rollouts of accepted versions: the newest of each alias, once."""

from datetime import UTC, datetime

from adaptd.daemon.domain.rollouts import Rollout
from adaptd.daemon.domain.states import AdapterState, RunState
from adaptd.daemon.policy.book import PolicyBook, PolicyVersion
from adaptd.daemon.rollout.coordinator import RolloutCoordinator
from adaptd.daemon.rollout.verdicts import objection
from adaptd.daemon.store.lifecycle.adapters import AdapterRow, AdapterStore
from adaptd.daemon.store.lifecycle.evaluations import EvaluationStore
from adaptd.daemon.store.lifecycle.rollouts import RolloutStore
from adaptd.daemon.store.lifecycle.runs import Run, RunStore

ACTOR = "rollout"


class RolloutStarter:
    """From accepted runs to rollouts. Call it under the coordinator's lock."""

    def __init__(
        self,
        coordinator: RolloutCoordinator,
        rollouts: RolloutStore,
        runs: RunStore,
        adapters: AdapterStore,
        evaluations: EvaluationStore,
        policies: PolicyBook,
    ) -> None:
        self._coordinator = coordinator
        self._rollouts = rollouts
        self._runs = runs
        self._adapters = adapters
        self._evaluations = evaluations
        self._policies = policies

    async def start_accepted(self) -> None:
        """Begin a rollout where an alias has none on its way. Safe to repeat."""
        accepted = await self._runs.in_state(RunState.ACCEPTED)
        present = await self._coordinator.look()
        for version in self._policies.all():
            runs = [run for run in accepted if run.model == version.model and run.adapter]
            runs.sort(key=lambda run: run.finished_at or run.created_at)
            for older in runs[:-1]:
                await self._pass_over(older)
            if runs and present.active(version.model) is None:
                await self._start_rollout(runs[-1], version)

    async def _pass_over(self, run: Run) -> None:
        """Retire a version where a newer one was accepted before its turn."""
        if (row := await self._waiting_version(run)) is not None:
            await self._retire_version(row, "a newer version was accepted before its turn")

    async def _retire_version(self, row: AdapterRow, reason: str) -> None:
        await self._adapters.move(row.name, AdapterState.RETIRED, actor=ACTOR, reason=reason)

    async def _start_rollout(self, run: Run, version: PolicyVersion) -> None:
        if (row := await self._waiting_version(run)) is None:
            return
        live = self._coordinator.present.live(run.model)
        if why_not := objection(await self._evaluations.of_run(run.run_id), live):
            await self._retire_version(row, why_not)
            return
        automatic = version.policy.rollout.approval == "automatic"
        rollout = Rollout(
            model=run.model,
            candidate=row.name,
            previous=live,
            run_id=run.run_id,
            approved_by="policy" if automatic else None,
            policy_version=version.version,
            created_at=datetime.now(UTC),
        )
        await self._rollouts.create(rollout, actor=ACTOR, reason=f"run {run.run_id} was accepted")

    async def _waiting_version(self, run: Run) -> AdapterRow | None:
        """The run's version, where it is still to be rolled out."""
        row = self._coordinator.present.adapters.get(run.adapter or "")
        if row is None or row.state != AdapterState.CANDIDATE or row.tainted_by:
            return None
        return None if await self._rollouts.of_candidate(row.name) else row
