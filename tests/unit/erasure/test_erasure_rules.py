"""Taint in the pure rules, ages of rows, and every statement against the schema."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from adaptd.daemon.domain.erasures import Person, pseudonym
from adaptd.daemon.domain.rollouts import Rollout
from adaptd.daemon.domain.states import AdapterState, RolloutState
from adaptd.daemon.domain.triggers import UsableExamples
from adaptd.daemon.erasure.retention import RetentionService
from adaptd.daemon.policy.model import Policy
from adaptd.daemon.policy.trigger import TriggerFacts
from adaptd.daemon.rollout import apply as changes
from adaptd.daemon.rollout.apply import By
from adaptd.daemon.rollout.state import RolloutFacts
from adaptd.daemon.scheduling.decide import decide
from adaptd.daemon.store.database.database import Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.ingest.tombstones import Tombstones
from adaptd.daemon.store.lifecycle.adapters import AdapterRow
from adaptd.daemon.store.privacy.erasures import ErasureStore
from adaptd.daemon.store.privacy.retention import RetentionStore
from adaptd.daemon.wire.errors import RefusedError
from tests.support.erasure_world import ErasureWorld
from tests.support.event_samples import a_rating, an_interaction
from tests.support.ingesting import Ingesting

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
V1, V2, V3 = "support@v1-11111111", "support@v2-22222222", "support@v3-33333333"
POLICY = Policy.model_validate({"version": 1, "model": "support", "base": "tiny"})
ENOUGH = UsableExamples(new_examples=0, train=9, holdout_items=1000, holdout_groups=100)
STATES = AdapterState


@pytest.fixture
def database() -> Iterator[Database]:
    opened = Database.open(":memory:")
    yield opened
    opened.close()


def test_a_tainted_live_version_starts_a_run_whatever_else_is_waited_for() -> None:
    decision = decide(POLICY, TriggerFacts(tainted_live=V1, usable=ENOUGH), now=NOW)

    assert decision.starts
    assert decision.trigger == {"kind": "tainted", "version": V1}
    assert not decide(POLICY, TriggerFacts(usable=ENOUGH), now=NOW).starts
    soon = TriggerFacts(tainted_live=V1, usable=ENOUGH, last_finished_at=NOW)
    assert decide(POLICY, soon, now=NOW).reason.startswith("cooldown")


def version(name: str, state: AdapterState, *, tainted: bool = False) -> AdapterRow:
    return AdapterRow(
        name=name, model="support", number=int(name[9]), content_hash="", path="", base_digest="",
        state=state, created_at=NOW, tainted_by="er-1" if tainted else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("tainted", "after"),
    [
        ((), {V1: STATES.RETIRED, V2: STATES.LAST_GOOD}),
        ((V2,), {V1: STATES.LAST_GOOD, V2: STATES.TAINTED}),
        ((V1,), {V1: STATES.TAINTED, V2: STATES.LAST_GOOD}),
        ((V1, V2), {V1: STATES.TAINTED, V2: STATES.TAINTED}),
    ],
)
def test_a_tainted_version_is_nothing_to_return_to_once_its_replacement_is_live(
    tainted: tuple[str, ...], after: dict[str, AdapterState]
) -> None:
    rollout = Rollout(
        model="support", candidate=V3, policy_version=1, created_at=NOW, state=RolloutState.STEP
    )
    versions = {V1: STATES.LAST_GOOD, V2: STATES.LIVE, V3: STATES.CANARY}
    found = [version(name, state, tainted=name in tainted) for name, state in versions.items()]
    world = RolloutFacts.of(found, [rollout])

    change = changes.promote(world, rollout, By(actor="t", reason="", now=NOW))

    states = {row.name: row.state for row in world.after(change).adapters.values()}
    assert states == after | {V3: STATES.LIVE}


def test_a_pseudonym_is_the_same_in_the_store(database: Database) -> None:
    asked = "SELECT keyed($secret, 'user', $who) AS found"
    found = database.write_now(lambda c: rows(c, asked, secret="5e", who="zoë"))
    assert found[0]["found"] == pseudonym("5e", "user", "zoë")


def test_every_statement_prepares(database: Database) -> None:
    columns = 'tenant, "user", unit_kind, unit, conversation, 1 AS "row", topic, position'
    columns += ', "partition", batch_index'

    def work(cursor: object) -> None:
        run = cursor.execute  # pyright: ignore[reportAttributeAccessIssue]
        run(
            f"CREATE TEMP TABLE chunk_rows AS SELECT {columns}, id AS interaction FROM interactions"
        )
        for file in ("erasures", "tombstones", "retention"):
            for name, statement in statements(file).items():
                run(f"PREPARE {file}_{name} AS {statement}")

    database.write_now(work)


async def test_old_rows_go_once_a_day_with_all_that_was_said_of_them(database: Database) -> None:
    ingesting = Ingesting(database)
    begun = ingesting.clock.now
    await ingesting.add(an_interaction(id="old"), b"not an event", at=begun - timedelta(days=9))
    await ingesting.add(a_rating("old"), an_interaction(id="new"), at=begun)
    store = RetentionStore(database)
    keep = {"events": 7 * 86400.0, "dead_letters": 86400.0}
    erasures = ErasureStore(database, "5e", Tombstones("5e", clock=ingesting.clock))
    service = RetentionService(store, erasures, keep, clock=ingesting.clock)

    await service.tick()

    assert [row["id"] for row in await ingesting.ask("SELECT id FROM interactions")] == ["new"]
    assert await ingesting.ask("SELECT id FROM feedback") == []
    assert await ingesting.ask("SELECT id FROM dead_letters") == []
    await ingesting.add(an_interaction(), at=begun - timedelta(days=9))
    ingesting.clock.now = begun + timedelta(hours=23)
    await service.tick()
    assert len(await ingesting.ask("SELECT id FROM interactions")) == 2


async def test_old_rows_go_in_batches(database: Database) -> None:
    ingesting = Ingesting(database)
    await ingesting.add(*(an_interaction() for _ in range(25)))
    before = ingesting.clock.now + timedelta(days=1)
    assert await RetentionStore(database).drop_rows("events", before=before, limit=10) == 25


async def test_nothing_that_stays_names_the_person(tmp_path: Path, database: Database) -> None:
    world = ErasureWorld(tmp_path, database)
    person = Person("ada@example.org")
    with pytest.raises(RefusedError, match="names the person"):
        await world.service.begin(person, reason="ada@example.org asked", actor="operator:1")

    erasure = await world.erase(person)
    again = await world.service.begin(person, reason="again", actor="operator:1")

    assert again.erasure_id != erasure.erasure_id
    await world.finish(again.erasure_id)
    for table in ("erasures", "erasure_work", "tombstones", "audit", "transitions"):
        found = await world.ingesting.ask(f"SELECT t::VARCHAR AS line FROM {table} t")
        assert not any("ada@" in row["line"] for row in found)
    kept = await world.ingesting.ask("SELECT action FROM audit ORDER BY sequence")
    assert kept[0]["action"] == "erasure.requested"


async def test_what_cannot_be_searched_is_blanked_or_named(
    tmp_path: Path, database: Database
) -> None:
    world = ErasureWorld(tmp_path, database)
    await world.ingesting.add(b"{packed", b"{sound")
    packed = "UPDATE dead_letters SET reason = 'unpacks_too_large' WHERE position = 0"
    await database.write(lambda cursor: cursor.execute(packed))
    (tmp_path / "store.duckdb.replaced-1").touch()
    (tmp_path / "store.duckdb.replaced-1.wal").touch()

    erasure = await world.erase(Person("ada"))

    assert await world.ingesting.ask(
        "SELECT reason, bytes FROM dead_letters ORDER BY position"
    ) == [
        {"reason": "erased", "bytes": None},
        {"reason": "not_json", "bytes": b"{sound"},
    ]
    assert erasure.report["replaced"] == [str(tmp_path / "store.duckdb.replaced-1")]


async def test_a_request_is_one_while_it_is_under_way(tmp_path: Path, database: Database) -> None:
    world = ErasureWorld(tmp_path, database)
    one, other = [
        await world.service.begin(Person("ada"), reason="asked", actor="t") for _ in range(2)
    ]
    assert one == msgspec.structs.replace(other)
