"""Versions and rollouts as they are, and as a change leaves them. Pure."""

from collections.abc import Iterable, Mapping

import msgspec

from adaptd.daemon.domain.rollouts import Rollout
from adaptd.daemon.domain.states import AdapterState, RolloutState
from adaptd.daemon.domain.versions import find_version
from adaptd.daemon.store.lifecycle.adapters import AdapterRow
from adaptd.daemon.store.lifecycle.rollouts import Change, is_active


class RolloutFacts(msgspec.Struct, frozen=True):
    """Every version and every rollout that is not final."""

    adapters: Mapping[str, AdapterRow]
    rollouts: Mapping[str, Rollout]

    @classmethod
    def of(cls, adapters: Iterable[AdapterRow], rollouts: Iterable[Rollout]) -> "RolloutFacts":
        return cls({a.name: a for a in adapters}, {r.rollout_id: r for r in rollouts})

    def live(self, model: str) -> str | None:
        """The alias's live version; None is the base."""
        return self._in_state(model, AdapterState.LIVE)

    def last_good(self, model: str) -> str | None:
        """The version that a rollback of live returns to; None is the base."""
        return self._in_state(model, AdapterState.LAST_GOOD)

    def is_tainted(self, name: str) -> bool:
        """True for a version that learnt from an erased person."""
        return self.adapters[name].tainted_by is not None

    def active(self, model: str) -> Rollout | None:
        """The alias's rollout that is neither live nor final."""
        return next((r for r in self._rollouts_of(model) if is_active(r)), None)

    def promoted(self, model: str) -> Rollout | None:
        """The rollout that brought the present live version, where it is not final."""
        live = self.live(model)
        found = (r for r in self._rollouts_of(model) if r.state == RolloutState.LIVE)
        return next((r for r in found if r.candidate == live), None)

    def behind(self, rollout: Rollout) -> str | None:
        """Name the rollout that holds the server's one place (D2): one on its steps, or an older
        one.
        """
        for other in sorted(self.rollouts.values(), key=lambda r: (r.created_at, r.rollout_id)):
            if other.rollout_id == rollout.rollout_id or not is_active(other):
                continue
            older = (other.created_at, other.rollout_id) < (rollout.created_at, rollout.rollout_id)
            if other.state == RolloutState.STEP or (older and _may_begin(other)):
                return f"rollout {other.rollout_id} of {other.model}"
        return None

    def wanted(self) -> list[str]:
        """Versions that have to be on the host, the most important first."""
        order = (AdapterState.LIVE, AdapterState.LAST_GOOD, AdapterState.CANARY)
        names = [a.name for state in order for a in self.adapters.values() if a.state == state]
        active = [r for r in self.rollouts.values() if is_active(r) and _may_begin(r)]
        names += [r.candidate for r in active if self.behind(r) is None]
        return list(dict.fromkeys(name for name in names if name in self.adapters))

    def after(self, change: Change) -> "RolloutFacts":
        """The facts after a change."""
        adapters, rollouts = dict(self.adapters), dict(self.rollouts)
        for adapter in change.adapters:
            row = adapters[adapter.name]
            adapters[adapter.name] = msgspec.structs.replace(row, state=adapter.to)
        for move in change.rollouts:
            rollouts.pop(move.before.rollout_id, None)
            if not move.after.state.is_final:
                rollouts[move.after.rollout_id] = move.after
        return RolloutFacts(adapters, rollouts)

    def _in_state(self, model: str, state: AdapterState) -> str | None:
        found = find_version(self.adapters.values(), model, state)
        return found.name if found else None

    def _rollouts_of(self, model: str) -> list[Rollout]:
        return [r for r in self.rollouts.values() if r.model == model]


def _may_begin(rollout: Rollout) -> bool:
    """Approved and not held before its first step."""
    return rollout.approved_by is not None and not rollout.paused
