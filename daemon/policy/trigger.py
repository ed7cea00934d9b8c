"""The seam for triggers: the parts that one file of `triggers/` brings.

A trigger is one reason to train. It brings the key that a policy writes in `train_when.any`, the
facts it reads from the store, the pure rule over them, and the words for both outcomes. It stands
here, below `scheduling`, because a policy's keys must be known wherever a policy is read.
"""

# APScheduler has no types.
# pyright: reportMissingTypeStubs=false

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from apscheduler.triggers.base import BaseTrigger

from adaptd.daemon.domain.triggers import CronState, JudgedAnswers, SnapshotMark, UsableExamples

if TYPE_CHECKING:
    from adaptd.daemon.policy.model import Policy  # which is composed of the triggers' keys

W = TypeVar("W")


class TriggerPort(Protocol):
    """Questions to the store (daemon/store/lifecycle/triggers.py)."""

    async def crons(self, model: str) -> list[CronState]: ...

    async def begin_cron(self, model: str, job: str, *, now: datetime) -> None: ...

    async def fire_cron(self, model: str, job: str, *, now: datetime) -> None: ...

    async def drop_crons(self, model: str, *, kept: Collection[str]) -> None: ...

    async def settle_crons(self, model: str) -> None: ...

    async def newest_snapshot(self, model: str) -> SnapshotMark | None: ...

    async def count_new(
        self, model: str, *, since: datetime, until: datetime, kinds: Collection[str]
    ) -> int: ...

    async def count_judged(self, model: str, *, since: datetime) -> JudgedAnswers: ...


@dataclass(frozen=True)
class TriggerScope:
    """The alias and the moment that a trigger reads its facts for."""

    model: str
    policy: "Policy"
    policy_version: int
    now: datetime


@dataclass(frozen=True)
class TriggerFacts:
    """Facts of one alias that the decision looks at.

    `read` holds what each trigger read, by the trigger's key. `usable` is None where counting was
    not worthwhile. `tainted_live` is the live version where it learnt from a person who was erased.
    `canary` is the version whose rollout is on its steps.
    """

    active_run: str | None = None
    last_finished_at: datetime | None = None
    read: Mapping[str, Any] = field(default_factory=dict[str, Any])
    usable: UsableExamples | None = None
    tainted_live: str | None = None
    canary: str | None = None


@dataclass(frozen=True)
class TriggerOutcome:
    """One trigger's answer. `cause` is what a started run records; None: the trigger waits."""

    reason: str
    cause: Mapping[str, Any] | None = None


class Trigger(ABC, Generic[W]):
    """One reason to train; `W` is the value that a policy gives it."""

    key: ClassVar[str]  # in the policy, in `TriggerFacts.read`, and the kind of a run's cause
    value: ClassVar[Any] = None  # type of the policy's value; None: no key, asked before the policy
    about: ClassVar[str | None] = None  # the key's description in schema.json

    async def read(self, wanted: Sequence[W], scope: TriggerScope, store: TriggerPort) -> Any:
        """Read the facts for all values that the policy gives; it may give none."""
        del wanted, scope, store
        return None

    async def settle(self, model: str, store: TriggerPort) -> None:
        """Note that a run of the alias has started: what waited for it waits no longer."""
        del model, store

    @abstractmethod
    def holds(self, wanted: W, facts: TriggerFacts) -> TriggerOutcome:
        """Say whether a run should start. Pure; `facts` may lack everything `read` returns."""

    def wake_times(self, wanted: Sequence[W], timezone: str) -> Mapping[str, BaseTrigger]:
        """Times at which the loop looks at once, by a name that is unique to each."""
        del wanted, timezone
        return {}
