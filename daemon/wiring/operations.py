"""What an operator may do, passed on to the parts that do it."""

from datetime import UTC, datetime
from typing import Any

from adaptd.consumers.kafka.service import IngestService
from adaptd.daemon.domain.states import RunState
from adaptd.daemon.recovery.restored_store import Restoration
from adaptd.daemon.rollout.operator_commands import RolloutOperator
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.web.ports import RolloutAction
from adaptd.daemon.wire.errors import RefusedError


class Operations:
    """Implements the surfaces' `Operator` port."""

    def __init__(
        self,
        *,
        runs: RunStore,
        rollouts: RolloutOperator,
        ingest: IngestService | None,
        restoration: Restoration,
    ) -> None:
        self._runs = runs
        self._restoration = restoration
        self._rollouts = rollouts
        self._ingest = ingest

    async def cancel_run(self, run_id: str, *, reason: str, actor: str) -> Any:
        """The stage that works on it notices, ends its child and throws away what it made."""
        now = datetime.now(UTC)
        return await self._runs.move(
            run_id, RunState.CANCELLED, actor=actor, reason=reason, now=now
        )

    async def start_rollout(self, adapter: str, *, override_reason: str | None, actor: str) -> Any:
        self._restoration.check()
        return await self._rollouts.start_rollout(
            adapter, override_reason=override_reason, actor=actor
        )

    async def act_on_rollout(
        self, rollout_id: str, action: RolloutAction, *, reason: str, actor: str
    ) -> Any:
        self._restoration.check()
        return await self._rollouts.act_on_rollout(rollout_id, action, reason=reason, actor=actor)

    async def roll_back(self, model: str, *, reason: str, actor: str) -> Any:
        self._restoration.check()
        return await self._rollouts.roll_back(model, reason=reason, actor=actor)

    async def resume_ingest(self, *, reason: str, actor: str, resync: bool = False) -> Any:
        if self._ingest is None:
            remedy = "Events come through POST /v1/events here"
            raise RefusedError("ingest", "no broker is set, so nothing is halted", remedy)
        act = self._ingest.resync if resync else self._ingest.resume
        await act(actor=actor, reason=reason)
        return await self._ingest.status()
