"""A run at the times of a cron expression."""

# APScheduler has no types.
# pyright: reportMissingTypeStubs=false

from collections.abc import Mapping, Sequence
from datetime import datetime

from apscheduler.triggers.base import BaseTrigger

from adaptd.daemon.policy.cron import cron_trigger, next_fire
from adaptd.daemon.policy.trigger import (
    Trigger,
    TriggerFacts,
    TriggerOutcome,
    TriggerPort,
    TriggerScope,
)
from adaptd.daemon.policy.values import Cron


class CronDueTrigger(Trigger[str]):
    """Holds from a cron's fire until a run starts.

    Fires are in the store before anything starts for them: a restart loses none and repeats none.
    """

    key = "cron"
    value = Cron
    about = "Minute hour day month weekday, in the policy's time zone; weekday 0 and 7 are Sunday."

    async def read(
        self, wanted: Sequence[str], scope: TriggerScope, store: TriggerPort
    ) -> Mapping[str, datetime]:
        """Store the fires that are due now; return those that wait for a run, by expression."""
        model, zone = scope.model, scope.policy.timezone
        jobs = _name_jobs(wanted, zone)
        known = {state.job: state for state in await store.crons(model)}
        if set(known) - set(jobs):
            await store.drop_crons(model, kept=list(jobs))
        for job, expression in jobs.items():
            if job not in known:
                await store.begin_cron(model, job, now=scope.now)
            elif (due := next_fire(cron_trigger(expression, zone), known[job].fired_at)) is None:
                continue
            elif due <= scope.now:
                await store.fire_cron(model, job, now=scope.now)
        states = await store.crons(model) if jobs else []
        return {jobs[state.job]: state.fired_at for state in states if state.waiting}

    async def settle(self, model: str, store: TriggerPort) -> None:
        await store.settle_crons(model)

    def holds(self, wanted: str, facts: TriggerFacts) -> TriggerOutcome:
        fires: Mapping[str, datetime] = facts.read.get(self.key, {})
        if (fired_at := fires.get(wanted)) is None:
            return TriggerOutcome(f"cron {wanted} is not due")
        cause = {"kind": self.key, "cron": wanted, "fired_at": fired_at.isoformat()}
        return TriggerOutcome(f"cron {wanted} was due at {cause['fired_at']}", cause)

    def wake_times(self, wanted: Sequence[str], timezone: str) -> Mapping[str, BaseTrigger]:
        jobs = _name_jobs(wanted, timezone)
        return {job: cron_trigger(expression, timezone) for job, expression in jobs.items()}


def _name_jobs(wanted: Sequence[str], timezone: str) -> dict[str, str]:
    """Expressions by the name that the store keeps each cron under."""
    return {f"{expression} {timezone}": expression for expression in wanted}


TRIGGER = CronDueTrigger()
