"""The operator's commands on rollouts. Each is one change, with actor and reason."""

from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import msgspec

from adaptd.daemon.domain.rollouts import Rollout, Waiver
from adaptd.daemon.domain.states import AdapterState, RolloutState
from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.rollout import apply as changes
from adaptd.daemon.rollout.apply import By
from adaptd.daemon.rollout.coordinator import RolloutCoordinator
from adaptd.daemon.rollout.state import RolloutFacts
from adaptd.daemon.rollout.verdicts import objection
from adaptd.daemon.store.lifecycle.adapters import AdapterRow, AdapterStore
from adaptd.daemon.store.lifecycle.evaluations import Evaluation, EvaluationStore
from adaptd.daemon.store.lifecycle.rollouts import Change, RolloutStore, is_active, label
from adaptd.daemon.wire.errors import RefusedError

RolloutAction = Literal["pause", "resume", "promote", "abort"]


class RolledBack(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a rollback.

    `to` None: the base. Not `published`: a gateway did not answer yet.
    """

    model: str
    version: str
    to: str | None
    rollout: str | None
    decided_at: datetime
    published: bool


class TookBack(Protocol):
    """Called after a rollback was written."""

    async def __call__(self, rollout_id: str | None, *, published: bool) -> None: ...


class RolloutOperator:
    """The operator's commands. They raise RefusedError where the state or a rule forbids them."""

    def __init__(
        self,
        coordinator: RolloutCoordinator,
        rollouts: RolloutStore,
        adapters: AdapterStore,
        evaluations: EvaluationStore,
        policies: PolicyBook,
        took_back: TookBack,
    ) -> None:
        self._coordinator = coordinator
        self._rollouts = rollouts
        self._adapters = adapters
        self._evaluations = evaluations
        self._policies = policies
        self._took_back = took_back

    async def start_rollout(
        self, adapter: str, *, override_reason: str | None, actor: str
    ) -> Rollout:
        """Begin a rollout of an accepted version, or of any version with a reason.

        No step is skipped.
        """
        async with self._coordinator.lock:
            present, row = await self._coordinator.look(), await self._adapters.get(adapter)
            live = present.live(row.model)
            why_not = objection(await self._evaluations_of(row), live)
            _check_startable(row, why_not=why_not, reason=override_reason)
            if (version := self._policies.current(row.model)) is None:
                where = f"model {row.model}"
                raise RefusedError(where, "it has no policy", "Write one: adaptd init")
            rollout = Rollout(
                model=row.model,
                candidate=adapter,
                previous=live,
                run_id=row.run_id,
                approved_by=actor,
                override_reason=override_reason if why_not else None,
                policy_version=version.version,
                created_at=datetime.now(UTC),
            )
            reason = override_reason or "started by an operator"
            return await self._rollouts.create(rollout, actor=actor, reason=reason)

    async def act_on_rollout(
        self, rollout_id: str, action: RolloutAction, *, reason: str, actor: str
    ) -> Rollout:
        """Pause, resume, promote or abort; see the functions of those names below."""
        by = By(actor=actor, reason=reason, now=datetime.now(UTC))
        make = {
            "pause": _pause_rollout,
            "resume": _resume_rollout,
            "promote": _promote_rollout,
            "abort": _abort_rollout,
        }[action]
        async with self._coordinator.lock:
            await self._coordinator.look()
            rollout = await self._rollouts.get(rollout_id)
            await self._coordinator.apply(make(rollout, by))
        return await self._rollouts.get(rollout_id)

    async def roll_back(self, model: str, *, reason: str, actor: str) -> RolledBack:
        """Take the newest version away from users: a canary where one is on, else the live one."""
        async with self._coordinator.lock:
            present, now = await self._coordinator.look(), datetime.now(UTC)
            evidence = {"decided_at": now.isoformat(), "rolled_back_because": reason}
            by = By(actor=actor, reason=reason, now=now, evidence=evidence)
            version, change = _rollback_change(present, model, by)
            published = await self._coordinator.apply(change)
            back_to = self._coordinator.present.live(model)
        rollout_id = change.rollouts[0].after.rollout_id if change.rollouts else None
        await self._took_back(rollout_id, published=published)
        return RolledBack(
            model=model,
            version=version,
            to=back_to,
            rollout=rollout_id,
            decided_at=now,
            published=published,
        )

    async def _evaluations_of(self, row: AdapterRow) -> list[Evaluation]:
        return await self._evaluations.of_run(row.run_id) if row.run_id else []


def _check_startable(row: AdapterRow, *, why_not: str | None, reason: str | None) -> None:
    where = f"adapter {row.name}"
    if row.state not in (AdapterState.CANDIDATE, AdapterState.RETIRED):
        raise RefusedError(where, f"it is {row.state}", "Only a candidate or retired one can start")
    if row.tainted_by:
        remedy = "Wait for the run that replaces it: adaptd status"
        raise RefusedError(where, "it learnt from a person who was erased", remedy)
    if why_not and not reason:
        remedy = "Give a reason to override: adaptd rollout start --override REASON"
        raise RefusedError(where, why_not, remedy)


def _rollback_change(present: RolloutFacts, model: str, by: By) -> tuple[str, Change]:
    active = present.active(model)
    if active is not None and active.state == RolloutState.STEP:
        return active.candidate, changes.take_back(present, active, by)
    if (live := present.live(model)) is None:
        raise RefusedError(f"model {model}", "the base is live", "There is nothing to roll back")
    return live, changes.take_live_back(present, model, live, by)


def _pause_rollout(rollout: Rollout, by: By) -> Change:
    """Stop advancing. The canary keeps its share and the guard goes on."""
    _check_active(rollout)
    if rollout.paused:
        raise _make_refusal(rollout, f"it is paused already: {rollout.paused}", "Resume it")
    return changes.pause(rollout, by, withdraw=False)


def _resume_rollout(rollout: Rollout, by: By) -> Change:
    """Resume. After a sample-ratio pause this also states that its cause is known and harmless."""
    _check_active(rollout)
    if not rollout.paused:
        raise _make_refusal(rollout, "it is not paused", "There is nothing to resume")
    guard: dict[str, Any] = rollout.evidence.get("guard") or {}
    return changes.resume(rollout, by, waive_sample_ratio=guard.get("verdict") == "pause")


def _promote_rollout(rollout: Rollout, by: By) -> Change:
    """Approve a rollout that waits for approval, or let one go on without conclusive evidence.

    Its steps keep their time, their units and their guard (D11).
    """
    _check_active(rollout)
    if rollout.approved_by is None:
        return changes.approve(rollout, by)
    if Waiver.EVIDENCE in rollout.waivers:
        raise _make_refusal(rollout, "it goes on without evidence already", "Wait for its steps")
    return changes.waive_evidence(rollout, by)


def _abort_rollout(rollout: Rollout, by: By) -> Change:
    """End it: its units return to live, its version retires."""
    _check_active(rollout)
    return changes.abort(rollout, AdapterState.RETIRED, by)


def _check_active(rollout: Rollout) -> None:
    if not is_active(rollout):
        raise _make_refusal(
            rollout, f"it is {label(rollout)}", "Only one on its way can be changed"
        )


def _make_refusal(rollout: Rollout, problem: str, remedy: str) -> RefusedError:
    return RefusedError(f"rollout {rollout.rollout_id}", problem, remedy)
