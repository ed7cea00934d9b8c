"""Rollouts, routes and receipts in the store: one decision is one transaction."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from adaptd.daemon.domain.receipts import Receipt
from adaptd.daemon.domain.rollouts import Frozen, LatencyLimit, Rollout, Waiver
from adaptd.daemon.domain.states import AdapterState, RolloutState
from adaptd.daemon.store.database.database import Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.lifecycle.adapters import AdapterStore, Origin
from adaptd.daemon.store.lifecycle.receipts import ReceiptStore
from adaptd.daemon.store.lifecycle.rollouts import AdapterMove, Change, RolloutMove, RolloutStore
from adaptd.daemon.store.lifecycle.routes import RouteStore
from adaptd.daemon.wire.errors import RefusedError
from adaptd.daemon.wire.routes import Route, RouteTable

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
replace = msgspec.structs.replace


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    opened = Database.open(":memory:")
    yield opened
    opened.close()


@pytest.fixture
def rollouts(database: Database) -> RolloutStore:
    return RolloutStore(database)


async def an_adapter(database: Database, letter: str) -> str:
    row = await AdapterStore(database).add(
        "support",
        Origin(content_hash=letter * 64, base_digest="base"),
        folder=Path("adapters"),
        actor="test",
        now=NOW,
    )
    return row.name


def a_rollout(candidate: str, model: str = "support") -> Rollout:
    return Rollout(model=model, candidate=candidate, policy_version=1, created_at=NOW)


def a_table(epoch: int) -> RouteTable:
    return RouteTable(epoch=epoch, base="base", routes={"support": Route(alias="support")})


def step_one(rollout: Rollout) -> RolloutMove:
    after = replace(rollout, state=RolloutState.STEP, step=1, step_started_at=NOW)
    return RolloutMove(rollout, after)


async def test_a_rollout_comes_back_as_it_was_put(rollouts: RolloutStore) -> None:
    frozen = Frozen(latency_limits=[LatencyLimit(5, 31.5)])
    rollout = replace(a_rollout("a"), frozen=frozen, waivers=[Waiver.EVIDENCE], withdrawn=True)

    await rollouts.create(rollout, actor="policy", reason="accepted")

    assert await rollouts.get(rollout.rollout_id) == rollout
    assert await rollouts.list("support") == [rollout] == await rollouts.unfinished()
    assert await rollouts.list("other") == []
    assert await rollouts.of_candidate("a") == [rollout]
    assert await rollouts.active("support") == rollout


async def test_an_alias_has_one_rollout_on_its_way(rollouts: RolloutStore) -> None:
    first = await rollouts.create(a_rollout("a"), actor="policy", reason="accepted")

    with pytest.raises(RefusedError, match=f"rollout {first.rollout_id} of a is still loading"):
        await rollouts.create(a_rollout("b"), actor="policy", reason="accepted")
    await rollouts.create(a_rollout("c", model="sales"), actor="policy", reason="accepted")

    live = RolloutMove(first, replace(first, state=RolloutState.LIVE, live_at=NOW))
    await rollouts.apply(Change(rollouts=[live], actor="guard", reason="done"), now=NOW)
    await rollouts.create(a_rollout("b"), actor="policy", reason="accepted")


async def test_a_decision_changes_everything_or_nothing(
    database: Database, rollouts: RolloutStore
) -> None:
    name = await an_adapter(database, "a")
    rollout = await rollouts.create(a_rollout(name), actor="policy", reason="accepted")
    change = Change(
        rollouts=[step_one(rollout)],
        adapters=[AdapterMove(name, AdapterState.CANARY), AdapterMove("?", AdapterState.LIVE)],
        table=a_table(1),
        actor="guard",
        reason="first step",
    )

    with pytest.raises(RefusedError, match="no such version"):
        await rollouts.apply(change, now=NOW)
    assert await rollouts.get(rollout.rollout_id) == rollout
    assert await RouteStore(database).current() is None

    await rollouts.apply(replace(change, adapters=change.adapters[:1]), now=NOW)
    assert (await rollouts.get(rollout.rollout_id)).step == 1
    assert (await AdapterStore(database).get(name)).state is AdapterState.CANARY
    assert await RouteStore(database).current() == a_table(1)


async def test_a_decision_on_a_state_that_has_passed_is_refused(rollouts: RolloutStore) -> None:
    rollout = await rollouts.create(a_rollout("a"), actor="policy", reason="accepted")
    change = Change(rollouts=[step_one(rollout)], actor="guard", reason="first step")
    await rollouts.record_evidence(rollout.rollout_id, {"seen": 1})  # evidence may grow meanwhile
    await rollouts.apply(change, now=NOW)

    with pytest.raises(RefusedError, match="it is step 1 by now, not loading"):
        await rollouts.apply(change, now=NOW)


async def test_every_decision_says_who_and_why(database: Database, rollouts: RolloutStore) -> None:
    rollout = await rollouts.create(a_rollout("a"), actor="policy", reason="accepted")
    change = Change(
        rollouts=[step_one(rollout)], actor="guard", reason="verified", evidence={"slope": 1.0}
    )
    await rollouts.apply(change, now=NOW)

    sql = statements("transitions")["transitions_of"]
    query = {"kind": "rollout", "subject": rollout.rollout_id}
    history = await database.read(lambda c: rows(c, sql, **query))
    steps = [(row["from_state"], row["to_state"], row["actor"]) for row in history]
    assert steps == [(None, "loading", "policy"), ("loading", "step 1", "guard")]
    assert history[1]["evidence"] == '{"slope":1.0}'


async def test_evidence_is_merged(rollouts: RolloutStore) -> None:
    rollout = await rollouts.create(a_rollout("a"), actor="policy", reason="accepted")
    await rollouts.record_evidence(rollout.rollout_id, {"decided_at": "x", "e": 1})
    await rollouts.record_evidence(rollout.rollout_id, {"e": 2})

    assert (await rollouts.get(rollout.rollout_id)).evidence == {"decided_at": "x", "e": 2}


async def test_the_current_table_is_the_one_with_the_highest_epoch(database: Database) -> None:
    routes = RouteStore(database)
    await routes.add(a_table(7), reason="first", now=NOW)
    await routes.add(a_table(9), reason="second", now=NOW - timedelta(days=1))

    assert await routes.current() == a_table(9)


async def test_the_first_receipt_on_a_process_stays(database: Database) -> None:
    receipts = ReceiptStore(database)
    passed = Receipt(adapter="a", instance="1", passed=True, slope=1.0, created_at=NOW)
    await receipts.add(passed)

    assert await receipts.add(replace(passed, passed=False, reason="changed")) == passed
    assert await receipts.get("a", "1") == passed
    assert await receipts.get("a", "2") is None
    assert await receipts.passed_on("1") == {"a"}
    assert await receipts.passed_on("2") == frozenset()
    assert await receipts.list("a") == [passed]
