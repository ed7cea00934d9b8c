"""Halts are stored, listed and lifted; dead letters are listed by reason and shown with bytes."""

from collections.abc import Iterator

import pytest

from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.ingest.dead_letters import DeadLetterStore
from adaptd.daemon.store.ingest.halts import HaltStore
from tests.support.clock import Clock
from tests.support.event_samples import NOON, an_interaction
from tests.support.ingesting import Ingesting


@pytest.fixture
def database() -> Iterator[Database]:
    opened = Database.open(":memory:")
    yield opened
    opened.close()


async def test_a_halt_is_in_force_until_it_is_lifted(database: Database) -> None:
    halts = HaltStore(database, clock=Clock(NOON))
    assert await halts.current() is None

    await halts.record("offsets are gone", {"lost": 7})
    await halts.record("a later one does not hide the first", None)

    halt = await halts.current()
    assert halt is not None
    assert (halt.reason, halt.detail) == ("offsets are gone", {"lost": 7})
    assert await halts.clear(actor="ada", reason="accepted")
    assert await halts.current() is None
    assert not await halts.clear(actor="ada", reason="again")
    [past] = await halts.list()
    assert past.cleared_at is not None


async def test_halting_and_lifting_are_on_record(database: Database) -> None:
    halts = HaltStore(database, clock=Clock(NOON))
    await halts.record("offsets are gone", None)
    await halts.clear(actor="ada", reason="accepted")

    history = await Ingesting(database).ask(
        "SELECT from_state, to_state, actor, reason FROM transitions ORDER BY happened_at"
    )

    assert [tuple(row.values()) for row in history] == [
        ("running", "halted", "daemon", "offsets are gone"),
        ("halted", "running", "ada", "accepted"),
    ]


async def test_dead_letters_are_counted_listed_and_shown(database: Database) -> None:
    ingesting = Ingesting(database)
    letters = DeadLetterStore(database, clock=ingesting.clock)
    await ingesting.add(b"\xff", b"{", b"}", an_interaction())

    reasons = {row.reason: row.letters for row in await letters.by_reason()}
    listed = await letters.list(reason="not_utf8")
    shown = await letters.show(listed[0].id)

    assert reasons == {"not_json": 2, "not_utf8": 1}
    assert [(letter.position, letter.size_bytes, letter.bytes) for letter in listed] == [
        (0, 1, None)
    ]
    assert shown is not None
    assert (shown.bytes, shown.reason, shown.source) == (b"\xff", "not_utf8", "kafka")
    assert len(await letters.list(limit=2)) == 2
    assert await letters.show("no such letter") is None
