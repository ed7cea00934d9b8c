"""The facts of a rollout's guard, counted by the store."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from adaptd.daemon.domain.rollouts import ArmTally, GuardFacts, LatencyLimit, Rollout
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements

_SQL = statements("guard")

CLOCK_SLACK = timedelta(hours=1)  # a gateway's clock may be behind ours; it only bounds the scan
# A slow answer is stored when it ends: the sample-ratio check waits this long, or a slow arm would
# seem rarer.
SETTLE = timedelta(seconds=60)
LIMIT_WINDOW = timedelta(days=7)
LIMIT_AT_LEAST = 100  # answers of one length class, or a p95 of them means little


class GuardStore:
    """Counts per arm; no event ever leaves the store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def facts(
        self,
        rollout: Rollout,
        *,
        maturity: timedelta,
        armed_at: datetime,
        watching: bool,
        now: datetime,
    ) -> GuardFacts:
        """What is known of a rollout now. `armed_at`: the fuse counts requests from then on only.

        `watching` compares after promotion: the candidate as live against the holdback.
        """
        values = {
            "rollout": rollout.rollout_id,
            "candidate": rollout.candidate,
            "watching": watching,
            "since": (rollout.live_at if watching and rollout.live_at else rollout.created_at)
            - CLOCK_SLACK,
        }
        moment = {"now": now, "maturity": maturity, "settle": SETTLE}
        limits = rollout.frozen.latency_limits if rollout.frozen else []
        counted = values | moment | _limit_lists(limits)
        started = rollout.step_started_at or rollout.created_at
        exposed = values | {"model": rollout.model, "step_started_at": started}
        fuse = {"rollout": rollout.rollout_id, "armed_at": armed_at}

        def work(cursor: Connection) -> GuardFacts:
            tallies = [
                msgspec.convert(r, ArmTally) for r in rows(cursor, _SQL["tallies"], **counted)
            ]
            seen = rows(cursor, _SQL["exposure"], **exposed)[0]
            broken = rows(cursor, _SQL["fuse"], **fuse)[0]
            return GuardFacts(tallies=tallies, **seen, **broken)

        return await self._database.read(work)

    async def latency_limits(
        self, model: str, adapter: str | None, *, now: datetime
    ) -> list[LatencyLimit]:
        """Live's p95 per length class of its last week; empty where it streamed too little."""
        values = {
            "model": model,
            "adapter": adapter,
            "since": now - LIMIT_WINDOW,
            "at_least": LIMIT_AT_LEAST,
        }
        found = await self._database.read(lambda c: rows(c, _SQL["latency_limits"], **values))
        return [msgspec.convert(row, LatencyLimit) for row in found]

    async def halted(self) -> str | None:
        """Why ingestion stands still, so that the guard sees nothing; None while it runs."""
        found = await self._database.read(lambda c: rows(c, _SQL["open_halts"]))
        return found[0]["reason"] if found else None


def _limit_lists(limits: Sequence[LatencyLimit]) -> dict[str, Any]:
    return {
        "buckets": [limit.bucket for limit in limits],
        "limits": [limit.ms_per_token for limit in limits],
    }
