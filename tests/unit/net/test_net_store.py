"""A store of an earlier release answers as it did, and its work goes on."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from adaptd.daemon.domain.erasures import ErasureState
from adaptd.daemon.domain.states import AdapterState, RolloutState, RunState
from adaptd.daemon.erasure.service import ErasureService, Places
from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.lifecycle.adapters import AdapterStore
from adaptd.daemon.store.lifecycle.policies import PolicyStore
from adaptd.daemon.store.lifecycle.rollouts import AdapterMove, Change, RolloutMove, RolloutStore
from adaptd.daemon.store.lifecycle.routes import RouteStore
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.store.stores import Stores
from adaptd.daemon.wire.routes import Route, RouteTable
from adaptd.daemon.wire.signing import derive, load_secret
from tests.net.answers import Answers
from tests.net.artifacts import differences, recorded
from tests.net.home import GOING, GONE, NoRollouts
from tests.support.clock import Clock
from tests.support.event_samples import a_rating, an_interaction
from tests.support.ingesting import Ingesting
from tests.support.stores import erasure_stores, stores_over


@pytest.fixture
def now() -> datetime:
    """When the store was asked first."""
    return msgspec.convert(recorded("files")["asked_at"], datetime)


@pytest.fixture
def secret(installation: Path) -> str:
    return derive(load_secret(installation / "home" / "secret.key"), "erasures").hex()


@pytest.fixture
def database(installation: Path) -> Iterator[Database]:
    opened = Database.open(installation / "home" / "store.duckdb", threads=1)
    yield opened
    opened.close()


@pytest.fixture
def clock(now: datetime) -> Clock:
    """One hour after the store was asked first."""
    return Clock(now + timedelta(hours=1))


@pytest.fixture
def stores(database: Database, installation: Path, secret: str, clock: Clock) -> Stores:
    return stores_over(
        database,
        installation / "home" / "examples",
        secret=secret,
        dedupe_window=timedelta(days=10),
        clock=clock,
    )


@pytest.fixture
def ingesting(database: Database, stores: Stores, clock: Clock) -> Ingesting:
    """Goes on where the last chunk ended, with the erased people barred."""
    found = Ingesting(database, clock)
    found.sink = stores.events
    (offsets,) = (
        place[2]["next_offset"]
        for place in recorded("store")["events"]["offsets"]["kafka"]
        if place[0] == "events"
    )
    found.next = offsets
    return found


async def test_it_answers_as_it_did(
    database: Database, installation: Path, tmp_path: Path, secret: str, now: datetime
) -> None:
    examples = installation / "home" / "examples"
    answers = Answers(database, now, secret=secret, examples=examples)

    assert differences("store", await answers.all(tmp_path / "scratch")) == {}


def test_the_recorded_history_is_one_unbroken_chain() -> None:
    links = recorded("store")["audit"]

    assert [link["digest"] for link in links] == [link["computed"] for link in links]
    assert [link["previous"] for link in links] == ["", *(link["digest"] for link in links[:-1])]


async def test_ingestion_goes_on_from_the_stored_offset(ingesting: Ingesting) -> None:
    barred = an_interaction(id="back", user=GONE.user, tenant=GONE.tenant)
    known = an_interaction(id="s-1", tenant="desk")
    written = await ingesting.add(
        an_interaction(id="new"), a_rating("s-1", id="f-new"), known, barred
    )

    assert (written.interactions, written.feedback) == (1, 1)
    assert (len(written.duplicates), len(written.barred)) == (1, 1)


async def test_a_rating_that_was_stored_without_a_scale_stays(ingesting: Ingesting) -> None:
    found = await ingesting.ask("SELECT value FROM feedback WHERE id = 'f-half'")
    assert found == [{"value": 0.5}]


async def test_the_rollout_in_progress_can_be_taken_back(database: Database, now: datetime) -> None:
    rollouts, routes = RolloutStore(database), RouteStore(database)
    rollout = await rollouts.active("support")
    table = await routes.current()
    assert rollout is not None
    assert table is not None
    assert (rollout.state, rollout.step) == (RolloutState.STEP, 1)
    after = msgspec.structs.replace(rollout, state=RolloutState.ROLLED_BACK, finished_at=now)
    route = Route(alias="support", live=rollout.previous)
    change = Change(
        rollouts=[RolloutMove(rollout, after)],
        adapters=[AdapterMove(rollout.candidate, AdapterState.QUARANTINED)],
        table=RouteTable(epoch=table.epoch + 1, base="tiny", routes={"support": route}),
        actor="daemon",
        reason="worse",
    )
    await rollouts.apply(change, now=now)

    assert await rollouts.active("support") is None
    candidate = await AdapterStore(database).get(rollout.candidate)
    assert candidate.state is AdapterState.QUARANTINED


async def test_runs_go_on(database: Database, now: datetime) -> None:
    runs, adapters = RunStore(database), AdapterStore(database)
    told = {"actor": "daemon", "now": now}

    queued = await runs.claim(RunState.QUEUED, RunState.BUILDING, **told)
    training = await runs.active("support")

    assert queued is not None
    assert queued.model == "billing"
    assert training is not None
    assert (training.state, training.attempts) == (RunState.TRAINING, 1)
    await runs.move(training.run_id, RunState.TRAINED, reason="trained", **told)
    assert await adapters.next_number("support") == 4
    assert await adapters.next_number("billing") == 4


async def test_every_stored_policy_can_be_read(database: Database) -> None:
    book = PolicyBook()
    unreadable = [
        stored for stored in await PolicyStore(database).all() if book.remember(stored) is None
    ]
    assert unreadable == []


async def test_an_erasure_under_way_comes_to_its_end(
    stores: Stores, installation: Path, ingesting: Ingesting
) -> None:
    home = installation / "home"
    places = Places(
        home=home,
        spool_dir=home / "gateway" / "spool",
        policies_dir=installation / "policies",
        barred_s=1,
        rewrite_every_s=0,
        tick_s=1,
    )
    clock = Clock(ingesting.clock.now)
    service = ErasureService(erasure_stores(stores), places, rollouts=NoRollouts(), clock=clock)

    await service.tick()

    states = {erasure.state for erasure in await service.list()}
    assert states == {ErasureState.DONE}
    left = await ingesting.ask('FROM interactions WHERE "user" = $user', user=GOING.user)
    assert left == []
