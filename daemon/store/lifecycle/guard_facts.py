"""The guard's facts about a rollout, counted in SQL."""

from datetime import datetime, timedelta

import msgspec

from adaptd.daemon.domain.rollouts import ArmTally, GuardFacts, LatencyLimit, Rollout
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements

_SQL = statements("guard")

CLOCK_SLACK = timedelta(hours=1)  # a gateway's clock may be late; this only bounds the scan
# A slow answer is stored when it ends. Without this wait the sample-ratio check would count a slow
# arm as rarer.
SETTLE = timedelta(seconds=60)
LIMIT_WINDOW = timedelta(days=7)
LIMIT_AT_LEAST = 100  # answers of one length class, or a p95 of them means little


class GuardStore:
    """Counts per arm; no event leaves the store."""

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
        """Count the facts of a rollout. `armed_at`: the fuse counts requests from then on only.

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
        buckets = {
            "buckets": [limit.bucket for limit in limits],
            "limits": [limit.ms_per_token for limit in limits],
        }
        counted = values | moment | buckets
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
        """Return live's p95 per length class over a week; empty where it streamed too little."""
        values = {
            "model": model,
            "adapter": adapter,
            "since": now - LIMIT_WINDOW,
            "at_least": LIMIT_AT_LEAST,
        }
        found = await self._database.read(lambda c: rows(c, _SQL["latency_limits"], **values))
        return [msgspec.convert(row, LatencyLimit) for row in found]

    async def halted(self) -> str | None:
        """Return why ingestion is halted, so that the guard sees nothing; None while it runs."""
        found = await self._database.read(lambda c: rows(c, _SQL["open_halts"]))
        return found[0]["reason"] if found else None
