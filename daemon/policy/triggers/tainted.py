"""A run that replaces a live version trained on a person who was erased."""

from adaptd.daemon.policy.trigger import Trigger, TriggerFacts, TriggerOutcome


class TaintedTrigger(Trigger[None]):
    """Holds whatever the policy waits for: the version has to go."""

    key = "tainted"

    def holds(self, wanted: None, facts: TriggerFacts) -> TriggerOutcome:
        if (name := facts.tainted_live) is None:
            return TriggerOutcome("live learnt from nobody who was erased")
        reason = f"{name} learnt from a person who was erased"
        return TriggerOutcome(reason, {"kind": self.key, "version": name})


TRIGGER = TaintedTrigger()
