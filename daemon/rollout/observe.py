"""Gather the facts that `decide` needs: counts, receipt, place, and whether the guard can see."""

import time
from datetime import datetime, timedelta
from typing import Any

import msgspec

from adaptd.daemon.domain.receipts import Receipt
from adaptd.daemon.domain.rollouts import GuardFacts, Rollout
from adaptd.daemon.domain.states import RolloutState
from adaptd.daemon.rollout.decide import Situation, is_watched
from adaptd.daemon.rollout.guard import Health, judge
from adaptd.daemon.rollout.loading import AdapterLoader
from adaptd.daemon.rollout.plan import Plan
from adaptd.daemon.rollout.publish_table import TablePublisher
from adaptd.daemon.rollout.state import RolloutFacts
from adaptd.daemon.rollout.verdicts import outdated
from adaptd.daemon.store.lifecycle.guard_facts import GuardStore
from adaptd.daemon.store.lifecycle.receipts import ReceiptStore
from adaptd.daemon.store.lifecycle.rollouts import RolloutStore

OUTAGE = timedelta(hours=1)  # evidence older than this at start: the canary's share goes to live
SILENCE = timedelta(minutes=10)  # the canary works and nothing of it is stored: ingestion is stuck
RECORD_EVERY_S = 5.0  # how often unchanged states' evidence is written


class GuardObserver:
    """Looks at one rollout. It reads the store only and never waits for the host or a gateway."""

    def __init__(
        self,
        guard: GuardStore,
        receipts: ReceiptStore,
        rollouts: RolloutStore,
        tables: TablePublisher,
        loader: AdapterLoader,
    ) -> None:
        self._guard = guard
        self._receipts = receipts
        self._rollouts = rollouts
        self._tables = tables
        self._loader = loader
        self._busy_since: dict[str, datetime] = {}
        self._recorded: dict[str, float] = {}

    async def situation(
        self, present: RolloutFacts, rollout: Rollout, plan: Plan, *, now: datetime
    ) -> Situation:
        """Gather everything that decides the rollout's next action."""
        if rollout.state in (RolloutState.LOADING, RolloutState.VERIFIED):
            return await self._before_traffic(present, rollout)
        if rollout.state == RolloutState.LIVE and not is_watched(rollout, plan, now=now):
            return Situation()
        facts = await self._gather_facts(rollout, plan, now)
        limits = rollout.frozen.latency_limits if rollout.frozen else []
        health = judge(facts, plan.guard, limits)
        if rollout.state == RolloutState.LIVE:
            return Situation(health=health)
        return Situation(health=health, blind=await self._find_blindness(rollout, facts, now))

    async def record(
        self, rollout: Rollout, health: Health | None, *, waits: str, asks: bool, now: datetime
    ) -> None:
        """Store the evidence, at most every few seconds."""
        last = self._recorded.get(rollout.rollout_id, float("-inf"))
        evidence: dict[str, Any] = {"waits": waits, "asks": asks}
        news = {key: rollout.evidence.get(key) for key in evidence} != evidence
        if not news and (health is None or time.monotonic() - last < RECORD_EVERY_S):
            return
        self._recorded[rollout.rollout_id] = time.monotonic()
        if health is not None:
            evidence |= {"guard": msgspec.to_builtins(health), "looked_at": now.isoformat()}
        await self._rollouts.record_evidence(rollout.rollout_id, evidence)

    async def _before_traffic(self, present: RolloutFacts, rollout: Rollout) -> Situation:
        return Situation(
            receipt=await self._find_receipt(rollout.candidate),
            problem=self._loader.problems.get(rollout.candidate),
            behind=present.behind(rollout),
            outdated=_find_outdated(present, rollout),
            blind=await self._find_halt(),
        )

    async def _find_receipt(self, name: str) -> Receipt | None:
        """Read the receipt of the host's present process.

        A passed one counts while the version is loaded.
        """
        if (info := self._loader.info) is None:
            return None
        receipt = await self._receipts.get(name, info.instance)
        gone = receipt is not None and receipt.passed and name not in self._loader.verified
        return None if gone else receipt

    async def _gather_facts(self, rollout: Rollout, plan: Plan, now: datetime) -> GuardFacts:
        """Count the guard's facts.

        The fuse counts from when the canary was last put on, since a host's
        end is not the canary's fault."""
        armed_at = self._tables.enabled_at.get(rollout.rollout_id, now)
        return await self._guard.facts(
            rollout,
            maturity=plan.guard.maturity,
            armed_at=armed_at,
            watching=rollout.state == RolloutState.LIVE,
            now=now,
        )

    async def _find_blindness(
        self, rollout: Rollout, facts: GuardFacts, now: datetime
    ) -> str | None:
        return await self._find_halt() or self._find_silence(rollout, facts, now)

    async def _find_halt(self) -> str | None:
        reason = await self._guard.halted()
        return f"ingestion is halted ({reason}): the guard sees nothing" if reason else None

    def _find_silence(self, rollout: Rollout, facts: GuardFacts, now: datetime) -> str | None:
        """Say where the canary answers and nothing of the alias was stored for `SILENCE`.

        The time counts from the first request seen, never over a quiet hour before it. A request
        that ended with its host leaves nothing to store, so it counts only while the same canary
        is on.
        """
        if not self._tables.in_flight(rollout.candidate):
            return None
        since = self._busy_since.setdefault(rollout.rollout_id, now)
        stored_at = facts.last_event_at
        armed_at = self._tables.enabled_at.get(rollout.rollout_id, since)
        if since < armed_at or (stored_at is not None and stored_at > since):
            since = self._busy_since[rollout.rollout_id] = now
        if now - since < SILENCE:
            return None
        return f"no event stored since {since:%H:%M} UTC though the canary answers"


def _find_outdated(present: RolloutFacts, rollout: Rollout) -> str | None:
    """Say why the verdict no longer counts. An operator's override needs no verdict."""
    if rollout.override_reason:
        return None
    return outdated(rollout.previous, present.live(rollout.model))


def outage(rollout: Rollout, *, now: datetime) -> str | None:
    """Say why a canary found at start may not go on: the guard has not looked for longer than
    OUTAGE.
    """
    looked_at = rollout.evidence.get("looked_at")
    last = datetime.fromisoformat(looked_at) if looked_at else rollout.step_started_at
    if rollout.state != RolloutState.STEP or rollout.withdrawn or last is None:
        return None
    if now - last <= OUTAGE:
        return None
    return f"evidence too old: the guard did not look from {last:%Y-%m-%d %H:%M} UTC until now"
