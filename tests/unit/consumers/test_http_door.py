"""Events over HTTP: the answer has a result for each event, after the transaction."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from adaptd.consumers.doors.http_door import (
    BodyTooLargeError,
    DoorBusyError,
    EventDoor,
    EventResult,
)
from adaptd.daemon.domain.ingest import HTTP, HTTP_PARTITION
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.wire.errors import RefusedError, StoreError
from adaptd.daemon.wire.tokens import Principal
from tests.support.event_samples import a_correction, a_rating, an_interaction, as_bytes
from tests.support.ingesting import Ingesting
from tests.support.waiting import LIMIT_S, until

JSON = "application/json"
NDJSON = "application/x-ndjson"
APP = Principal(
    id="t1",
    tenant="acme",
    scopes=frozenset({"events"}),
    sources=frozenset({"user"}),
    models=frozenset({"support"}),
)
CONTROL = Principal(id="t0", tenant="operator", scopes=frozenset({"control"}))


@pytest.fixture
def ingesting() -> Iterator[Ingesting]:
    database = Database.open(":memory:")
    yield Ingesting(database)
    database.close()


@pytest.fixture
def door(ingesting: Ingesting) -> EventDoor:
    return EventDoor(ingesting.sink)


def words(results: list[EventResult]) -> list[str]:
    return [result.reason or result.result for result in results]


async def transactions(ingesting: Ingesting) -> int:
    [row] = await ingesting.ask("SELECT count(DISTINCT ingested_at) AS n FROM interactions")
    return row["n"]


async def test_an_event_is_stored_when_it_is_answered(
    door: EventDoor, ingesting: Ingesting
) -> None:
    [result] = await door.accept(as_bytes(an_interaction(id="i1")), JSON, APP)

    assert result == EventResult(item=0, result="stored", id="i1")
    assert await ingesting.reads.has("i1")


async def test_each_event_of_a_body_has_its_own_answer(door: EventDoor) -> None:
    first = an_interaction()
    await door.accept(as_bytes(first), JSON, APP)
    batch = {"batch": [a_rating("i1"), {"schema": "adaptd.feedback/1"}]}
    body = as_bytes([first, an_interaction(), b"text".decode(), batch, a_rating("i1", 7)])

    results = await door.accept(body, JSON, APP)

    assert words(results) == [
        "duplicate",
        "stored",
        "not_an_object",
        "stored",
        "invalid",
        "rating_without_scale",
    ]
    assert [(result.item, result.index) for result in results] == [
        (0, 0),
        (1, 0),
        (2, 0),
        (3, 0),
        (3, 1),
        (4, 0),
    ]
    assert results[5].detail == "a rating without a scale is -1 or 1"


async def test_lines_of_ndjson_are_events(door: EventDoor) -> None:
    body = b"\n".join([as_bytes(an_interaction()), b"", b"{broken", as_bytes(a_rating("i1"))])

    assert words(await door.accept(body, NDJSON, APP)) == ["stored", "not_json", "stored"]


async def test_a_body_that_is_no_json_is_kept_as_a_dead_letter(
    door: EventDoor, ingesting: Ingesting
) -> None:
    assert words(await door.accept(b"[{oh no", JSON, APP)) == ["not_json"]

    [letter] = await ingesting.ask("SELECT * FROM dead_letters")
    assert (letter["bytes"], letter["source"]) == (b"[{oh no", "http")


async def test_an_empty_list_has_no_answers(door: EventDoor) -> None:
    assert await door.accept(b"[]", JSON, APP) == []
    assert words(await door.accept(as_bytes(an_interaction()), JSON, APP)) == ["stored"]


async def test_an_event_sent_again_is_a_duplicate(door: EventDoor, ingesting: Ingesting) -> None:
    event = an_interaction()

    results = await door.accept(as_bytes([event, event]), JSON, APP)

    assert words(results) == ["stored", "duplicate"]
    assert (await ingesting.reads.counts()).interactions == 1


async def test_an_application_speaks_for_its_tenant_and_is_never_the_gateway(
    door: EventDoor, ingesting: Ingesting
) -> None:
    await door.accept(
        as_bytes([an_interaction(tenant="other", arm="canary"), a_rating("i1", tenant="other")]),
        JSON,
        APP,
    )

    rows = await ingesting.ask(
        "SELECT tenant, trusted FROM interactions UNION ALL SELECT tenant, trusted FROM feedback"
    )
    assert rows == [{"tenant": "acme", "trusted": False}] * 2
    assert await ingesting.ask("SELECT principal, arm FROM feedback, interactions") == [
        {"principal": "t1", "arm": "canary"}
    ]


async def test_an_application_may_say_only_what_its_token_permits(door: EventDoor) -> None:
    body = as_bytes([a_correction("i1", source="agent"), an_interaction(model="sales")])

    assert words(await door.accept(body, JSON, APP)) == [
        "source_not_permitted",
        "model_not_permitted",
    ]


async def test_the_control_token_is_the_gateway(door: EventDoor, ingesting: Ingesting) -> None:
    body = as_bytes([an_interaction(tenant="other"), a_correction("i1", source="agent")])

    assert words(await door.accept(body, JSON, CONTROL)) == ["stored", "stored"]

    assert await ingesting.ask("SELECT tenant, trusted FROM interactions") == [
        {"tenant": "other", "trusted": True}
    ]


async def test_a_token_without_the_scope_is_refused(door: EventDoor) -> None:
    reader = msgspec.structs.replace(APP, scopes=frozenset({"read"}))

    with pytest.raises(RefusedError, match="may not send events"):
        await door.accept(as_bytes(an_interaction()), JSON, reader)


async def test_limits_hold_for_each_event_and_for_the_events_of_a_body(
    ingesting: Ingesting,
) -> None:
    door = EventDoor(ingesting.sink, max_event_bytes=300, max_batch=3)
    long = an_interaction(client_request_id="x" * 300)

    results = await door.accept(as_bytes([an_interaction(), long]), JSON, APP)
    assert words(results) == ["stored", "too_large"]

    packed = {"batch": [an_interaction() for _ in range(3)]}
    with pytest.raises(BodyTooLargeError, match="4 events"):
        await door.accept(as_bytes([packed, an_interaction()]), JSON, APP)


async def test_requests_that_wait_for_the_store_share_a_transaction(
    door: EventDoor, ingesting: Ingesting
) -> None:
    await door.accept(as_bytes(an_interaction()), JSON, APP)
    busy = _Busy(ingesting.database)
    first = asyncio.create_task(door.accept(as_bytes(an_interaction()), JSON, APP))
    await until(lambda: door._turn.locked() and not door._waiting, within_s=5)
    others = [
        asyncio.create_task(door.accept(as_bytes(an_interaction()), JSON, APP)) for _ in range(50)
    ]
    await until(lambda: len(door._waiting) == 50, within_s=5)

    busy.end()
    results = await asyncio.gather(first, *others)

    assert [words(each) for each in results] == [["stored"]] * 51
    assert await transactions(ingesting) == 3
    assert (await ingesting.sink.offsets(HTTP))[HTTP_PARTITION].next_offset == 52


async def test_a_caller_that_gives_up_takes_nobody_along(
    door: EventDoor, ingesting: Ingesting
) -> None:
    await door.accept(as_bytes(an_interaction()), JSON, APP)
    busy = _Busy(ingesting.database)
    sent = [an_interaction() for _ in range(4)]
    calls = [asyncio.create_task(door.accept(as_bytes(sent[0]), JSON, APP))]
    await until(lambda: door._turn.locked() and not door._waiting, within_s=5)
    calls += [asyncio.create_task(door.accept(as_bytes(event), JSON, APP)) for event in sent[1:]]
    await until(lambda: len(door._waiting) == 3, within_s=5)

    calls[0].cancel()  # its transaction runs
    calls[1].cancel()  # it waits
    busy.end()
    results = await asyncio.gather(*calls, return_exceptions=True)

    assert [isinstance(result, asyncio.CancelledError) for result in results[:2]] == [True, True]
    assert [words(result) for result in results[2:] if isinstance(result, list)] == [["stored"]] * 2
    again: list[Any] = [await door.accept(as_bytes(event), JSON, APP) for event in sent]
    assert [words(result) for result in again] == [
        ["duplicate"],
        ["stored"],
        ["duplicate"],
        ["duplicate"],
    ]


async def test_too_much_waiting_is_refused(ingesting: Ingesting) -> None:
    body = as_bytes(an_interaction())
    door = EventDoor(ingesting.sink, max_waiting_bytes=2 * len(body))
    busy = _Busy(ingesting.database)
    calls = [asyncio.create_task(door.accept(body, JSON, APP)) for _ in range(2)]
    await until(lambda: door._waiting_bytes == 2 * len(body), within_s=5)

    with pytest.raises(DoorBusyError):
        await door.accept(body, JSON, APP)

    busy.end()
    await asyncio.gather(*calls)
    assert words(await door.accept(body, JSON, APP)) == ["duplicate"]


async def test_where_the_store_fails_nobody_is_told_stored(
    door: EventDoor, ingesting: Ingesting
) -> None:
    await door.accept(as_bytes(an_interaction()), JSON, APP)
    event = as_bytes(an_interaction(id="i1"))
    await ingesting.database.write(lambda c: c.execute("ALTER TABLE interactions RENAME TO hidden"))

    results = await asyncio.gather(
        *(door.accept(event, JSON, APP) for _ in range(3)), return_exceptions=True
    )
    await ingesting.database.write(lambda c: c.execute("ALTER TABLE hidden RENAME TO interactions"))

    assert [isinstance(result, StoreError) for result in results] == [True] * 3
    assert words(await door.accept(event, JSON, APP)) == ["stored"]


async def test_a_second_door_on_one_store_never_says_stored_wrongly(ingesting: Ingesting) -> None:
    first, second = EventDoor(ingesting.sink), EventDoor(ingesting.sink)
    await second.accept(as_bytes(an_interaction()), JSON, APP)
    await first.accept(as_bytes(an_interaction()), JSON, APP)

    event = as_bytes(an_interaction(id="i1"))
    with pytest.raises(StoreError, match="another door"):
        await second.accept(event, JSON, APP)

    assert words(await second.accept(event, JSON, APP)) == ["stored"]


class _Busy:
    """Keeps the store's writer thread busy until `end`."""

    def __init__(self, database: Database) -> None:
        self._release = threading.Event()
        self._work = asyncio.ensure_future(
            database.write(lambda _: self._release.wait(timeout=LIMIT_S))
        )

    def end(self) -> None:
        self._release.set()
