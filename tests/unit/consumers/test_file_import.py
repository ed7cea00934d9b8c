"""Lines of files as events, in each format. A repeat stores nothing twice."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from adaptd.consumers.doors.file_import import (
    FileImporter,
    import_sender,
    read_lines,
    refused_lines,
)
from adaptd.consumers.doors.import_options import ImportOptions, ImportStep, Rating
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.wire.errors import RefusedError
from adaptd.daemon.wire.tokens import Principal
from tests.support.event_samples import a_rating, an_interaction, as_bytes
from tests.support.ingesting import Ingesting

OPERATOR = Principal(id="ada", tenant="ops", scopes=frozenset({"operate"}))
DIGEST = hashlib.sha256(b"file").hexdigest()
OWN = ImportOptions(format="adaptd")
CHAT = ImportOptions(format="openai", model="support", time=datetime(2026, 11, 1, tzinfo=UTC))
SCORES = ImportOptions(
    format="langfuse", ratings=(Rating(name="thumbs"), Rating(name="stars", low=1, high=5))
)


def a_chat(answer: str = "card_arrival", **message: Any) -> bytes:
    asked = {"role": "user", "content": "Where is my card?"}
    said = {"role": "assistant", "content": answer} | message
    return json.dumps({"messages": [{"role": "system", "content": "Route."}, asked, said]}).encode()


def a_score(**fields: Any) -> bytes:
    """A score as the API and the web export write it."""
    made = {
        "id": "s1",
        "traceId": "i1",
        "name": "thumbs",
        "value": 1,
        "dataType": "BOOLEAN",
        "source": "API",
        "timestamp": "2026-11-01T12:00:00.000Z",
    } | fields
    return json.dumps({name: value for name, value in made.items() if value is not None}).encode()


def feedback_of(options: ImportOptions, *lines: bytes) -> list[dict[str, Any]]:
    decoded = read_lines(
        lines, options, start=1, source="import:x", sender=import_sender("ada", options)
    )
    assert refused_lines(decoded) == []
    return decoded.feedback.to_pylist()


def reasons(options: ImportOptions, *lines: bytes) -> list[tuple[int, str]]:
    decoded = read_lines(
        lines, options, start=1, source="import:x", sender=import_sender("ada", options)
    )
    return [(refused.line, refused.reason) for refused in refused_lines(decoded)]


@pytest.fixture
def ingesting() -> Iterator[Ingesting]:
    database = Database.open(":memory:")
    yield Ingesting(database)
    database.close()


async def put(
    ingesting: Ingesting,
    options: ImportOptions,
    *lines: bytes,
    start: int = 1,
    digest: str = DIGEST,
) -> Any:
    desk = FileImporter(ingesting.sink)
    return await desk.take(digest, ImportStep(start=start, options=options), lines, OPERATOR)


async def test_own_events_are_stored_with_the_line_as_position(ingesting: Ingesting) -> None:
    done = await put(
        ingesting, OWN, as_bytes(an_interaction(id="i1")), b"", as_bytes(a_rating("i1")), b"{"
    )

    assert (done.interactions, done.feedback, done.next_line) == (1, 1, 5)
    assert [(refused.line, refused.reason) for refused in done.refused] == [(4, "not_json")]
    [row] = await ingesting.ask("SELECT source, position, trusted FROM interactions")
    assert row == {"source": f"import:{DIGEST}", "position": 1, "trusted": False}


async def test_what_was_stored_is_passed_over_and_holes_are_refused(ingesting: Ingesting) -> None:
    lines = [as_bytes(an_interaction()) for _ in range(3)]
    await put(ingesting, OWN, *lines[:2])

    again = await put(ingesting, OWN, *lines)

    assert (again.interactions, again.next_line) == (1, 4)
    with pytest.raises(RefusedError, match="from 4 on"):
        await put(ingesting, OWN, lines[0], start=9)


async def test_the_same_events_in_another_file_years_later_are_stored_once(
    ingesting: Ingesting,
) -> None:
    await put(ingesting, CHAT, a_chat())
    ingesting.clock.now += timedelta(days=900)

    done = await put(ingesting, CHAT, a_chat(), a_chat("other"), digest="0" * 64)

    assert (done.interactions, done.duplicates) == (1, 1)


async def test_other_options_read_a_file_anew(ingesting: Ingesting) -> None:
    await put(ingesting, CHAT, a_chat())

    reviewed = msgspec.structs.replace(CHAT, reviewer="ada")
    done = await put(ingesting, reviewed, a_chat())

    assert (done.interactions, done.feedback, done.duplicates) == (0, 1, 1)


def test_a_chat_becomes_an_answer() -> None:
    decoded = read_lines(
        [a_chat(weight=1)], CHAT, start=1, source="import:x", sender=import_sender("ada", CHAT)
    )

    [row] = decoded.interactions.to_pylist()
    request, choices = json.loads(row["request"]), json.loads(row["choices"])
    assert [message["role"] for message in request["messages"]] == ["system", "user"]
    assert choices[0]["message"] == {"role": "assistant", "content": "card_arrival"}
    assert (row["model"], row["time"], row["adapter"]) == ("support", CHAT.time, None)
    assert decoded.feedback.num_rows == 0


def test_with_a_reviewer_the_answer_is_also_a_correction() -> None:
    reviewed = msgspec.structs.replace(CHAT, reviewer="ada", tenant="acme")

    [row] = feedback_of(reviewed, a_chat())
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    [called] = feedback_of(reviewed, a_chat(tool_calls=calls))

    assert (row["kind"], row["origin"], row["user"]) == ("correction", "reviewer", "ada")
    assert (row["text"], row["tenant"]) == ("card_arrival", "acme")
    assert json.loads(called["message"])["tool_calls"] == calls
    assert feedback_of(reviewed, a_chat(weight=0)) == [], "not to be trained on"


def test_lines_that_are_no_chats_are_refused_with_their_number() -> None:
    asked = {"role": "user", "content": "?"}
    answer = {"role": "assistant", "content": "!"}
    lines = [
        b'{"prompt": "?", "completion": "!"}',
        b'{"messages": []}',
        b"[]",
        json.dumps({"messages": [asked]}).encode(),
        json.dumps({"messages": [answer]}).encode(),
        b'{"messages": ' + b"[" * 100 + b"]" * 100 + b"}",
        b"x" * 5_000_001,
    ]
    assert reasons(CHAT, *lines) == [
        (1, "not_chat"),
        (2, "not_chat"),
        (3, "not_chat"),
        (4, "no_answer"),
        (5, "no_question"),
        (6, "too_deep"),
        (7, "too_large"),
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"kind": "rating", "value": 1.0, "origin": "user"}),
        ({"value": 0}, {"kind": "rating", "value": -1.0}),
        (
            {"name": "stars", "value": 4, "dataType": "NUMERIC", "source": "ANNOTATION"},
            {"kind": "rating", "value": 0.5, "origin": "reviewer"},
        ),
        (
            {"name": "latency", "value": 2.5, "dataType": "NUMERIC", "source": "EVAL"},
            {"kind": "metric", "value": 2.5, "name": "latency", "origin": "system"},
        ),
        ({"name": "hallucinated"}, {"kind": "metric", "value": 1.0}),
        (
            {"name": "topic", "value": 0, "stringValue": "cards", "dataType": "CATEGORICAL"},
            {"kind": "label", "label": "cards", "name": "topic"},
        ),
        (
            {"name": "note", "value": None, "stringValue": "rude", "dataType": "TEXT"},
            {"kind": "comment", "text": "rude"},
        ),
        (
            {"name": "output", "value": None, "stringValue": "yes", "dataType": "CORRECTION"},
            {"kind": "correction", "text": "yes"},
        ),
        ({"authorUserId": "ada"}, {"user": "ada"}),
    ],
)
def test_a_score_becomes_feedback(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    [row] = feedback_of(SCORES, a_score(**fields))

    assert {name: row[name] for name in expected} == expected
    assert (row["interaction"], row["time"]) == ("i1", datetime(2026, 11, 1, 12, tzinfo=UTC))


def test_the_export_to_blob_storage_names_its_fields_otherwise() -> None:
    line = {
        "id": "s1",
        "trace_id": "i1",
        "observation_id": "o1",
        "name": "topic",
        "string_value": "cards",
        "data_type": "CATEGORICAL",
        "source": "ANNOTATION",
        "author_user_id": "ada",
        "comment": "clear",
        "timestamp": "2026-11-01 12:00:00.000000",
        "updated_at": "2026-11-02 12:00:00.000000",
    }
    by_observation = msgspec.structs.replace(SCORES, by="observation")

    rows = feedback_of(by_observation, json.dumps(line).encode())

    assert [(row["kind"], row["interaction"]) for row in rows] == [
        ("label", "o1"),
        ("comment", "o1"),
    ]
    assert {row["time"] for row in rows} == {datetime(2026, 11, 2, 12, tzinfo=UTC)}
    assert {row["user"] for row in rows} == {"ada"}


def test_a_changed_score_is_new_and_an_unchanged_one_is_not() -> None:
    rows = feedback_of(
        SCORES, a_score(), a_score(value=0), a_score(updatedAt="2026-11-09T12:00:00Z")
    )

    first, changed, same = (row["id"] for row in rows)
    assert first == same != changed


def test_scores_that_say_nothing_usable_are_refused() -> None:
    lines = [
        a_score(traceId=None),
        a_score(value=None),
        a_score(name=None),
        a_score(dataType="ODD"),
        a_score(name="stars", value=9, dataType="NUMERIC"),
        a_score(timestamp="yesterday"),
        b"7",
    ]
    assert reasons(SCORES, *lines) == [
        (1, "no_interaction"),
        (2, "no_value"),
        (3, "not_a_score"),
        (4, "not_a_score"),
        (5, "rating_out_of_range"),
        (6, "invalid"),
        (7, "not_a_score"),
    ]


async def test_a_dead_letter_keeps_the_line_of_the_file(ingesting: Ingesting) -> None:
    line = a_score(name="stars", value=9, dataType="NUMERIC")

    await put(ingesting, SCORES, line)

    [letter] = await ingesting.ask("SELECT bytes, position, reason FROM dead_letters")
    assert (letter["bytes"], letter["position"]) == (line, 1)


@pytest.mark.parametrize(
    "options",
    [
        ImportOptions(format="openai"),
        ImportOptions(format="adaptd", reviewer="ada"),
        ImportOptions(format="openai", model="support", ratings=(Rating(name="x"),)),
    ],
)
async def test_options_have_to_fit_the_format(ingesting: Ingesting, options: ImportOptions) -> None:
    with pytest.raises(RefusedError):
        await put(ingesting, options, b"{}")


async def test_a_file_is_named_by_its_digest(ingesting: Ingesting) -> None:
    with pytest.raises(RefusedError, match="SHA-256"):
        await put(ingesting, OWN, b"{}", digest="../../etc/passwd")
