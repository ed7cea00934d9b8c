"""The guard's facts, counted in SQL from interactions and feedback."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import msgspec
import pytest

from adaptd.daemon.domain.rollouts import (
    ArmTally,
    Frozen,
    GuardFacts,
    GuardMetric,
    LatencyLimit,
    Rollout,
)
from adaptd.daemon.domain.states import RolloutState
from adaptd.daemon.store.database.database import Connection, Database
from adaptd.daemon.store.lifecycle.guard_facts import GuardStore

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
ROLLOUT = Rollout(
    rollout_id="rollout-1",
    model="support",
    candidate="support@v2-aaaaaaaa",
    previous="support@v1-bbbbbbbb",
    state=RolloutState.STEP,
    step=1,
    policy_version=1,
    created_at=NOW - 24 * HOUR,
    step_started_at=NOW - 2 * HOUR,
)
_ids = count()


class Traffic:
    """Writes interactions and feedback as ingestion would."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ask(self, arm: str = "live", *, age: timedelta = 4 * HOUR, **changes: Any) -> str:
        """One request that old; returns its id."""
        adapter = ROLLOUT.candidate if arm == "canary" else ROLLOUT.previous
        row = {
            "id": f"i{next(_ids)}",
            "time": NOW - age,
            "ingested_at": NOW - age,
            "model": "support",
            "adapter": adapter,
            "arm": arm,
            "weight": 0.25,
            "rollout": ROLLOUT.rollout_id,
            "status": "ok",
            "trusted": True,
            "source": "test",
        }
        row |= {"unit": f"u{row['id']}"} | changes
        self._insert("interactions", row)
        return row["id"]

    def say(self, interaction: str, *, age: timedelta = 3 * HOUR, **changes: Any) -> None:
        """A bad rating that old, unless changed."""
        row = {
            "id": f"f{next(_ids)}",
            "time": NOW - age,
            "ingested_at": NOW - age,
            "effective_at": NOW - age,
            "interaction": interaction,
            "choice": 0,
            "origin": "user",
            "kind": "rating",
            "value": -1.0,
            "trusted": True,
            "source": "test",
        }
        self._insert("feedback", row | changes)

    def _insert(self, table: str, row: dict[str, Any]) -> None:
        names = ", ".join(f'"{name}"' for name in row)
        marks = ", ".join("?" for _ in row)

        def work(cursor: Connection) -> None:
            cursor.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))

        self._database.write_now(work)


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    opened = Database.open(":memory:")
    yield opened
    opened.close()


@pytest.fixture
def traffic(database: Database) -> Traffic:
    return Traffic(database)


async def look(
    database: Database,
    rollout: Rollout = ROLLOUT,
    *,
    maturity: timedelta = 2 * HOUR,
    watching: bool = False,
    armed_at: datetime = NOW - 24 * HOUR,
) -> GuardFacts:
    return await GuardStore(database).facts(
        rollout, maturity=maturity, armed_at=armed_at, watching=watching, now=NOW
    )


def of(facts: GuardFacts, metric: GuardMetric) -> list[ArmTally]:
    return [tally for tally in facts.tallies if tally.metric == metric]


async def test_nothing_seen_is_nothing_counted(database: Database) -> None:
    assert await look(database) == GuardFacts()


async def test_bad_ratings_and_corrections_count_per_arm_and_weight(
    database: Database, traffic: Traffic
) -> None:
    traffic.say(traffic.ask("canary"))
    traffic.say(traffic.ask("canary"), kind="correction", value=None, text="x")
    traffic.say(traffic.ask("canary", weight=0.5))
    traffic.say(traffic.ask("live"))
    traffic.say(traffic.ask("live"), value=1.0)
    traffic.say(traffic.ask("live"), kind="comment", value=None)

    assert of(await look(database), GuardMetric.NEGATIVE) == [
        ArmTally(GuardMetric.NEGATIVE, False, 0.25, 1),
        ArmTally(GuardMetric.NEGATIVE, True, 0.25, 2),
        ArmTally(GuardMetric.NEGATIVE, True, 0.5, 1),
    ]


async def test_a_unit_counts_once_by_its_first_bad_request(
    database: Database, traffic: Traffic
) -> None:
    later = traffic.ask("canary", unit="heavy", weight=0.5, age=3 * HOUR)
    first = traffic.ask("live", unit="heavy", weight=0.25, age=4 * HOUR)
    for _ in range(5):
        traffic.say(later, age=2 * HOUR)
        traffic.say(first, age=2 * HOUR)

    assert of(await look(database), GuardMetric.NEGATIVE) == [
        ArmTally(GuardMetric.NEGATIVE, False, 0.25, 1)
    ]


async def test_a_negative_counts_only_once_its_request_is_mature_and_if_it_came_in_time(
    database: Database, traffic: Traffic
) -> None:
    traffic.say(traffic.ask("canary", age=HOUR), age=HOUR)  # too young
    traffic.say(traffic.ask("canary", age=5 * HOUR), age=2 * HOUR)  # came after 3 h
    traffic.say(traffic.ask("live", age=5 * HOUR), age=4 * HOUR)

    assert of(await look(database), GuardMetric.NEGATIVE) == [
        ArmTally(GuardMetric.NEGATIVE, False, 0.25, 1)
    ]


async def test_only_trusted_rows_of_this_rollout_with_both_arms_served_count(
    database: Database, traffic: Traffic
) -> None:
    traffic.say(traffic.ask("canary", trusted=False))
    traffic.say(traffic.ask("canary"), trusted=False)
    traffic.say(traffic.ask("canary", rollout="rollout-0"))
    traffic.say(traffic.ask("live", weight=0.0))  # served while the lease was lost
    traffic.say(traffic.ask("live", weight=1.0))
    traffic.say(traffic.ask("shadow"))
    traffic.say(traffic.ask("canary", unit=None))

    assert of(await look(database), GuardMetric.NEGATIVE) == []


async def test_errors_count_at_once(database: Database, traffic: Traffic) -> None:
    for status in ("error", "timeout", "aborted", "refused", "ok"):
        traffic.ask("canary", status=status, age=timedelta(0))
    traffic.ask("live", status="error", unit="u", age=timedelta(0))
    traffic.ask("live", status="error", unit="u", age=timedelta(0))

    assert of(await look(database), GuardMetric.ERROR) == [
        ArmTally(GuardMetric.ERROR, False, 0.25, 1),
        ArmTally(GuardMetric.ERROR, True, 0.25, 2),
    ]


async def test_latency_is_time_per_output_token_above_the_limit_of_its_length_class(
    database: Database, traffic: Traffic
) -> None:
    limited = msgspec.structs.replace(
        ROLLOUT, frozen=Frozen(latency_limits=[LatencyLimit(3, 20.0)])
    )

    def stream(arm: str, tokens: int, decode_ms: float, ttft_ms: float | None = 500.0) -> None:
        usage = {"prompt_tokens": 10, "completion_tokens": tokens}
        total = decode_ms + (ttft_ms or 0)
        traffic.ask(arm, usage=usage, latency_ms=total, ttft_ms=ttft_ms)

    stream("canary", 11, 201)  # 20.1 ms a token
    stream("live", 11, 199)
    stream("canary", 11, 199, ttft_ms=9000)  # a slow first token is not a slow model
    stream("canary", 5, 4000)  # live never answered that short: nothing to compare with
    stream("canary", 11, 4000, ttft_ms=None)  # not streamed: unknown when decoding began
    stream("canary", 1, 4000)

    facts = await look(database, limited)
    assert of(facts, GuardMetric.LATENCY) == [ArmTally(GuardMetric.LATENCY, True, 0.25, 1)]
    assert (facts.ttft_ms_live, facts.ttft_ms_canary) == (500.0, 500.0)


async def test_a_unit_is_assigned_once_and_counted_when_settled(
    database: Database, traffic: Traffic
) -> None:
    traffic.ask("live", unit="a", weight=0.05, age=3 * HOUR)
    traffic.ask("canary", unit="a", weight=0.25, age=HOUR)
    traffic.ask("canary", unit="b", age=HOUR, status="error")
    traffic.ask("canary", unit="c", age=timedelta(seconds=5))

    assert of(await look(database), GuardMetric.ASSIGNMENT) == [
        ArmTally(GuardMetric.ASSIGNMENT, False, 0.05, 1),
        ArmTally(GuardMetric.ASSIGNMENT, True, 0.25, 1),
    ]


async def test_exposure_counts_distinct_units(database: Database, traffic: Traffic) -> None:
    for age in (4 * HOUR, HOUR):
        traffic.ask("canary", unit="a", age=age)
        traffic.ask("live", unit="b", age=age)
    traffic.ask("canary", unit="c", age=4 * HOUR)  # before this step

    facts = await look(database)
    assert (facts.units_live, facts.units_canary, facts.units_this_step) == (1, 2, 1)
    assert facts.last_event_at == NOW - HOUR


async def test_the_fuse_counts_back_from_the_newest_canary_request(
    database: Database, traffic: Traffic
) -> None:
    minute = timedelta(minutes=1)
    traffic.ask("live", status="error", age=9 * minute)  # before: not "meanwhile"
    traffic.ask("canary", status="error", age=8 * minute)
    traffic.ask("canary", age=7 * minute)
    traffic.ask("canary", status="error", age=6 * minute)
    traffic.ask("live", age=5 * minute)
    traffic.ask("canary", status="aborted", age=4 * minute)  # the client's doing: neither way
    traffic.ask("canary", status="timeout", age=3 * minute)

    facts = await look(database)
    assert facts.canary_errors_in_a_row == 2
    assert (facts.live_ok_since, facts.live_errors_since) == (1, 0)
    later = await look(database, armed_at=NOW - 4 * minute)
    assert (later.canary_errors_in_a_row, later.live_ok_since) == (1, 0)


async def test_after_promotion_the_candidate_as_live_is_compared_with_the_holdback(
    database: Database, traffic: Traffic
) -> None:
    traffic.say(traffic.ask("canary"))
    traffic.say(traffic.ask("live"))
    traffic.say(traffic.ask("live", adapter=ROLLOUT.candidate, weight=0.95))
    traffic.say(traffic.ask("holdback", weight=0.95))

    assert of(await look(database, watching=True), GuardMetric.NEGATIVE) == [
        ArmTally(GuardMetric.NEGATIVE, False, 0.95, 1),
        ArmTally(GuardMetric.NEGATIVE, True, 0.95, 1),
    ]
    assert [t.weight for t in of(await look(database), GuardMetric.NEGATIVE)] == [0.25, 0.25]


async def test_a_base_that_is_live_has_no_adapter_name(
    database: Database, traffic: Traffic
) -> None:
    from_base = msgspec.structs.replace(ROLLOUT, previous=None)
    traffic.say(traffic.ask("live", adapter=None))

    assert of(await look(database, from_base), GuardMetric.NEGATIVE) == [
        ArmTally(GuardMetric.NEGATIVE, False, 0.25, 1)
    ]


async def test_latency_limits_are_lives_own_p95_by_length(
    database: Database, traffic: Traffic
) -> None:
    guard = GuardStore(database)
    for number in range(100):
        usage = {"prompt_tokens": 1, "completion_tokens": 9}
        traffic.ask(usage=usage, ttft_ms=100.0, latency_ms=100.0 + 8 * (number + 1))
    traffic.ask(usage={"prompt_tokens": 1, "completion_tokens": 40}, ttft_ms=1.0, latency_ms=9.0)

    limits = await guard.latency_limits("support", ROLLOUT.previous, now=NOW)
    assert [limit.bucket for limit in limits] == [3]
    assert limits[0].ms_per_token == pytest.approx(95.05)
    assert await guard.latency_limits("support", None, now=NOW) == []


async def test_a_halt_is_known_until_it_is_cleared(database: Database) -> None:
    guard = GuardStore(database)
    assert await guard.halted() is None
    database.write_now(
        lambda c: c.execute("INSERT INTO halts VALUES (?, 'topic deleted', NULL, NULL)", [NOW])
    )
    assert await guard.halted() == "topic deleted"
