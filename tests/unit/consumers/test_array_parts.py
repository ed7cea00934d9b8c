"""Millions of tiny parts are refused before they are in memory; others are taken as they are."""

import msgspec
import pytest

from adaptd.consumers.decoding.json_events import UnreadableError, array_parts, split
from adaptd.consumers.doors.http_door import BodyTooLargeError, EventDoor
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.wire.tokens import Principal
from tests.support.ingesting import Ingesting

MANY = 600_000
NUMBERS = b"[" + b"1," * MANY + b"1]"
SENDER = Principal(id="t1", tenant="acme", scopes=frozenset({"events"}))


def test_too_many_parts_are_told_without_reading_them_all() -> None:
    with pytest.raises(UnreadableError, match="batch_too_long"):
        array_parts(NUMBERS, 1000)
    with pytest.raises(UnreadableError, match="batch_too_long"):
        list(split(b'{"batch":' + NUMBERS + b"}"))


@pytest.mark.parametrize("array", [b" [ " + NUMBERS + b" , 2 ] ", b"[" + NUMBERS + b"]"])
def test_few_parts_may_hold_many_commas(array: bytes) -> None:
    assert len(array_parts(array, 2)) == array.count(b" , 2") + 1


@pytest.mark.parametrize(
    "array", [b"[" + NUMBERS, b"," * MANY, b"[" + b"," * MANY, b"[" + b"[" * MANY + b"," * MANY]
)
def test_what_is_no_array_is_told_as_such(array: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, ValueError, RecursionError)):
        array_parts(array, 2)


@pytest.mark.parametrize(
    ("body", "kind"), [(NUMBERS, "application/json"), (b"1\n" * 20_000, "application/x-ndjson")]
)
async def test_the_door_refuses_such_bodies(body: bytes, kind: str) -> None:
    database = Database.open(":memory:")
    with pytest.raises(BodyTooLargeError, match="more than 10000"):
        await EventDoor(Ingesting(database).sink).accept(body, kind, SENDER)
    database.close()
