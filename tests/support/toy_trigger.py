"""A trigger of nobody's policy, written as an outsider would: shows that one file is enough."""

from collections.abc import Sequence

from pydantic import PositiveInt

from adaptd.daemon.policy.trigger import (
    Trigger,
    TriggerFacts,
    TriggerOutcome,
    TriggerPort,
    TriggerScope,
)


class EveryNthDayTrigger(Trigger[int]):
    """Holds on every n-th day of the year."""

    key = "every_nth_day"
    value = PositiveInt
    about = "Days of the year between two runs."

    async def read(self, wanted: Sequence[int], scope: TriggerScope, store: TriggerPort) -> int:
        return scope.now.timetuple().tm_yday

    def holds(self, wanted: int, facts: TriggerFacts) -> TriggerOutcome:
        day: int = facts.read.get(self.key, 1)
        if day % wanted:
            return TriggerOutcome(f"day {day} is no multiple of {wanted}")
        return TriggerOutcome(f"day {day} of the year", {"kind": self.key, "day": day})
