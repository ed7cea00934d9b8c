"""A run when too many answers of a window are judged badly."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from pydantic import PositiveInt

from adaptd.daemon.domain.triggers import JudgedAnswers
from adaptd.daemon.policy.trigger import (
    Trigger,
    TriggerFacts,
    TriggerOutcome,
    TriggerPort,
    TriggerScope,
)
from adaptd.daemon.policy.values import Duration, Share, Strict

_NONE_JUDGED = JudgedAnswers(total=0, negative=0)


class NegativeShare(Strict):
    """Starts a run when answers are judged badly too often."""

    above: Share
    """Share of the judged answers that were rated below zero or corrected."""
    over: Duration
    """Window before now."""
    at_least: PositiveInt = 100
    """Judged answers needed before the share means anything."""


class NegativeShareTrigger(Trigger[NegativeShare]):
    """Compares the share of badly judged answers with the policy's."""

    key = "negative_share"
    value = NegativeShare

    async def read(
        self, wanted: Sequence[NegativeShare], scope: TriggerScope, store: TriggerPort
    ) -> Mapping[timedelta, JudgedAnswers]:
        """Count judged answers, once for each window."""
        return {
            over: await store.count_judged(scope.model, since=scope.now - over)
            for over in {entry.over for entry in wanted}
        }

    def holds(self, wanted: NegativeShare, facts: TriggerFacts) -> TriggerOutcome:
        windows: Mapping[timedelta, JudgedAnswers] = facts.read.get(self.key, {})
        judged = windows.get(wanted.over, _NONE_JUDGED)
        if judged.total < wanted.at_least:
            return TriggerOutcome(f"{judged.total} of {wanted.at_least} judged answers")
        share = judged.negative / judged.total
        if share <= wanted.above:
            return TriggerOutcome(f"negative share {share:.1%}, not above {wanted.above:.1%}")
        shown = {"share": round(share, 4), "above": wanted.above, "judged": judged.total}
        reason = f"negative share {shown['share']:.1%} of {judged.total} judged answers"
        return TriggerOutcome(reason, {"kind": self.key, **shown})


TRIGGER = NegativeShareTrigger()
