"""A run after enough examples that no version saw yet."""

from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import PositiveInt

from adaptd.daemon.policy.trigger import (
    Trigger,
    TriggerFacts,
    TriggerOutcome,
    TriggerPort,
    TriggerScope,
)

_START = datetime(1970, 1, 1, tzinfo=UTC)


class NewExamplesTrigger(Trigger[int]):
    """Counts feedback cheaply first; usable examples decide once they are counted."""

    key = "new_examples"
    value = PositiveInt
    about = (
        "Usable examples that no version saw yet. Runs that failed on them are tried twice again."
    )

    async def read(self, wanted: Sequence[int], scope: TriggerScope, store: TriggerPort) -> int:
        """Count feedback since the newest snapshot, an upper bound of the new examples."""
        if not wanted:
            return 0
        select = scope.policy.select
        mark = await store.newest_snapshot(scope.model)
        # A changed policy may use what the one before left out, so all of the feedback counts.
        same_policy = mark is not None and mark.policy_version == scope.policy_version
        since = mark.as_of - select.caps.min_age if mark is not None and same_policy else _START
        until = scope.now - select.caps.min_age
        return await store.count_new(scope.model, since=since, until=until, kinds=select.use)

    def holds(self, wanted: int, facts: TriggerFacts) -> TriggerOutcome:
        at_most: int = facts.read.get(self.key, 0)
        seen = at_most if facts.usable is None else facts.usable.new_examples
        if seen < wanted:
            return TriggerOutcome(f"{seen} of {wanted} new examples")
        cause = {"kind": self.key, "seen": seen, "wanted": wanted}
        return TriggerOutcome(f"{seen} new examples (wanted {wanted})", cause)


TRIGGER = NewExamplesTrigger()
