"""The web surfaces' `Operator` and `RecoveryPort` ports, filled with the parts that do the work.

Stands alone as the one place that holds an operator's commands back while a restored store waits.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from types import CoroutineType
from typing import Any, ParamSpec, TypeVar

from adaptd.consumers.kafka.service import IngestService
from adaptd.daemon.domain.states import RunState
from adaptd.daemon.recovery.backups import Backups
from adaptd.daemon.recovery.restored_store import Restoration
from adaptd.daemon.rollout.operator_commands import RolloutOperator
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.wire.errors import RefusedError

P = ParamSpec("P")
T = TypeVar("T")


class OperatorCommands:
    """Implements `Operator`: runs, rollouts and ingestion."""

    def __init__(
        self,
        *,
        runs: RunStore,
        rollouts: RolloutOperator,
        ingest: IngestService | None,
        restoration: Restoration,
    ) -> None:
        self._runs = runs
        self._ingest = ingest
        self.start_rollout = _refuse_while_held(restoration, rollouts.start_rollout)
        self.act_on_rollout = _refuse_while_held(restoration, rollouts.act_on_rollout)
        self.roll_back = _refuse_while_held(restoration, rollouts.roll_back)

    async def cancel_run(self, run_id: str, *, reason: str, actor: str) -> Any:
        """Cancel a run. Its stage notices, ends the child and throws away what that made."""
        now = datetime.now(UTC)
        return await self._runs.move(
            run_id, RunState.CANCELLED, actor=actor, reason=reason, now=now
        )

    async def resume_ingest(self, *, reason: str, actor: str, resync: bool = False) -> Any:
        """Clear a halt; `resync` also accepts what the broker no longer has."""
        if self._ingest is None:
            remedy = "Events come through POST /v1/events here"
            raise RefusedError("ingest", "no broker is set, so nothing is halted", remedy)
        act = self._ingest.resync if resync else self._ingest.resume
        await act(actor=actor, reason=reason)
        return await self._ingest.status()


class RecoveryCommands:
    """Implements `RecoveryPort`: backups, and the release of a restored store."""

    def __init__(self, backups: Backups, restoration: Restoration) -> None:
        self._restoration = restoration
        self.start_backup = backups.start
        self.backup_job = backups.job
        self.cancel_backup = backups.cancel

    async def release_store(self, *, reason: str, actor: str) -> Any:
        """Let a restored store act; return how it stands then."""
        await self._restoration.release(actor=actor, reason=reason)
        return self._restoration.document()


def _refuse_while_held(
    restoration: Restoration, act: "Callable[P, CoroutineType[Any, Any, T]]"
) -> "Callable[P, CoroutineType[Any, Any, T]]":
    async def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        restoration.check()  # raises RefusedError while the restored store waits
        return await act(*args, **kwargs)

    return checked
