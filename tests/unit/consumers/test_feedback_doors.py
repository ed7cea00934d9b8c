"""One corpus of feedback through every door: the gateway, POST /v1/events, Kafka, a file."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptd.consumers.doors.file_import import import_sender, read_lines, refused_lines
from adaptd.consumers.doors.http_door import EventDoor
from adaptd.consumers.doors.import_options import ImportOptions
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.wire.events import FEEDBACK_SCHEMA
from adaptd.daemon.wire.signing import new_response_id
from adaptd.daemon.wire.tokens import Principal
from adaptd.serving.gateway.feedback import read_feedback
from adaptd.serving.gateway.refusals import RefusalError
from tests.support.ingesting import Ingesting, chunk

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
KEY = b"k" * 32
OWN = new_response_id(KEY, "acme", clock=lambda: NOW)
APP = Principal(
    id="t1",
    tenant="acme",
    scopes=frozenset({"events", "feedback"}),
    sources=frozenset({"user"}),
)
FILE = ImportOptions(format="adaptd")
DEEP: dict[str, Any] = {"role": "assistant"}
for _ in range(70):
    DEEP = {"more": DEEP}

# What a sender gives, and why it cannot be used; None where it can.
CORPUS: list[tuple[dict[str, Any], str | None]] = [
    ({"kind": "rating", "value": 1}, None),
    ({"kind": "rating", "value": -1}, None),
    ({"kind": "rating", "value": 1.0}, None),
    ({"kind": "rating", "value": 4, "scale": [1, 5]}, None),
    ({"kind": "rating", "value": 0.5, "scale": [0, 1]}, None),
    ({"kind": "rating", "value": 0, "scale": [-1, 1]}, None),
    ({"kind": "rating", "value": 1.7e308, "scale": [-1.7e308, 1.7e308]}, None),
    ({"kind": "rating", "value": 0.5}, "rating_without_scale"),
    ({"kind": "rating", "value": -0.5}, "rating_without_scale"),
    ({"kind": "rating", "value": 0}, "rating_without_scale"),
    ({"kind": "rating", "value": 5}, "rating_without_scale"),
    ({"kind": "rating", "value": -1.01}, "rating_without_scale"),
    ({"kind": "rating", "value": 6, "scale": [1, 5]}, "rating_out_of_range"),
    ({"kind": "rating", "value": 0, "scale": [1, 5]}, "rating_out_of_range"),
    ({"kind": "rating", "value": 1, "scale": [5, 1]}, "rating_out_of_range"),
    ({"kind": "rating", "value": 1, "scale": [1, 1]}, "rating_out_of_range"),
    ({"kind": "rating", "value": 0, "scale": [0, 5e-324]}, "rating_out_of_range"),
    ({"kind": "rating"}, "incomplete"),
    ({"kind": "rating", "value": None}, "incomplete"),
    ({"kind": "rating", "value": "good"}, "incomplete"),
    ({"kind": "rating", "value": "1"}, "incomplete"),
    ({"kind": "correction", "text": "card_arrival"}, None),
    ({"kind": "correction", "message": {"role": "assistant", "content": "x"}}, None),
    ({"kind": "correction", "text": " ", "message": {"content": "x"}}, None),
    ({"kind": "correction"}, "incomplete"),
    ({"kind": "correction", "text": " \n"}, "incomplete"),
    ({"kind": "correction", "text": "", "message": {}}, "incomplete"),
    ({"kind": "correction", "message": DEEP}, "too_deep"),
    ({"kind": "preference", "chosen": "a", "rejected": "b"}, None),
    ({"kind": "preference", "chosen": "", "rejected": "b"}, None),
    ({"kind": "preference", "chosen": "a"}, "incomplete"),
    ({"kind": "label", "name": "topic", "value": "cards"}, None),
    ({"kind": "label", "name": "topic", "value": 1}, None),
    ({"kind": "label", "name": "topic"}, "incomplete"),
    ({"kind": "label", "value": "cards"}, "incomplete"),
    ({"kind": "metric", "name": "seconds", "value": 0}, None),
    ({"kind": "metric", "name": "seconds", "value": "0"}, "incomplete"),
    ({"kind": "metric", "value": 1}, "incomplete"),
    ({"kind": "comment", "text": "thanks"}, None),
    ({"kind": "comment", "text": " "}, "incomplete"),
    ({"kind": "comment"}, "incomplete"),
    ({"kind": "comment", "text": "x", "time": "1969-12-31T23:59:59Z"}, "time_out_of_range"),
]
# Refused for their types: the gateway has one answer to all of these, the others say `invalid`.
MALFORMED: list[dict[str, Any]] = [
    {"kind": "praise", "value": 1},
    {"kind": "rating", "value": [1]},
    {"kind": "rating", "value": True},
    {"kind": "rating", "value": 1, "scale": [1]},
    {"kind": "rating", "value": 1, "scale": [1, 2, 3]},
    {"kind": "rating", "value": 1, "scale": ["a", "b"]},
    {"kind": "rating", "value": 1, "choice": -1},
    {"kind": "rating", "value": 1, "choice": 1024},
    {"kind": "comment", "text": 1},
    {"kind": "correction", "message": "text"},
    {"kind": "comment", "text": "x", "user": ""},
    {"kind": "comment", "text": "x", "user": "x" * 129},
    {"kind": "comment", "text": "x", "source": "robot"},
    {"kind": "comment", "text": "x", "time": "2026-01-01T00:00:00"},
    {"kind": "comment", "text": "x", "tags": {"a": 1}},
]


@pytest.fixture
def ingesting() -> Iterator[Ingesting]:
    database = Database.open(":memory:")
    yield Ingesting(database)
    database.close()


def an_event(said: dict[str, Any]) -> bytes:
    event = {"schema": FEEDBACK_SCHEMA, "id": "f1", "time": NOW.isoformat(), "interaction": OWN}
    return msgspec.json.encode(event | said)


def at_the_gateway(said: dict[str, Any]) -> str | None:
    body = msgspec.json.encode({"interaction": OWN} | said)
    try:
        read_feedback(body, APP, ids_key=KEY, now=NOW)
    except RefusalError as refusal:
        return (refusal.code or "invalid") if refusal.status == 400 else str(refusal.status)
    return None


def in_kafka(said: dict[str, Any]) -> str | None:
    return reason_in(chunk([an_event(said)], start=0).dead_letters.to_pylist())


def in_a_file(said: dict[str, Any]) -> str | None:
    decoded = read_lines(
        [an_event(said)], FILE, start=1, source="import:x", sender=import_sender("ada", FILE)
    )
    return reason_in([msgspec.structs.asdict(line) for line in refused_lines(decoded)])


async def over_http(ingesting: Ingesting, said: dict[str, Any]) -> str | None:
    [result] = await EventDoor(ingesting.sink).accept(an_event(said), "application/json", APP)
    assert result.result in ("stored", "dead_letter")
    return result.reason


def reason_in(letters: list[dict[str, Any]]) -> str | None:
    return letters[0]["reason"] if letters else None


@pytest.mark.parametrize(("said", "reason"), CORPUS)
async def test_every_door_says_the_same_of_a_piece_of_feedback(
    ingesting: Ingesting, said: dict[str, Any], reason: str | None
) -> None:
    answers = {
        "gateway": at_the_gateway(said),
        "kafka": in_kafka(said),
        "file": in_a_file(said),
        "http": await over_http(ingesting, said),
    }
    assert answers == dict.fromkeys(answers, reason)


@pytest.mark.parametrize("said", MALFORMED)
async def test_no_door_takes_feedback_of_wrong_types(
    ingesting: Ingesting, said: dict[str, Any]
) -> None:
    answers = [at_the_gateway(said), in_kafka(said), in_a_file(said)]
    assert answers == ["invalid"] * 3
    assert await over_http(ingesting, said) == "invalid"


@given(
    value=st.sampled_from([-1.0, 0.0, 0.5, 1.0]) | st.floats(allow_nan=False, allow_infinity=False),
    scale=st.none()
    | st.tuples(
        st.floats(allow_nan=False, allow_infinity=False),
        st.floats(allow_nan=False, allow_infinity=False),
    ),
)
def test_gateway_and_log_agree_on_any_rating(
    value: float, scale: tuple[float, float] | None
) -> None:
    said = {"kind": "rating", "value": value, "scale": scale}
    assert at_the_gateway(said) == in_kafka(said)


async def test_a_refused_rating_keeps_what_is_needed_to_send_it_again(
    ingesting: Ingesting,
) -> None:
    value = an_event({"kind": "rating", "value": 0.5})
    await ingesting.add(value)

    [letter] = await ingesting.ask("SELECT reason, bytes, sender FROM dead_letters")

    assert letter["reason"] == "rating_without_scale"
    assert letter["bytes"] == value
    assert letter["sender"] is not None
