"""Half a letter in an event: a dead letter through every door, and nothing of it in the store."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from adaptd.consumers.doors.file_import import import_sender, read_lines, refused_lines
from adaptd.consumers.doors.import_options import ImportOptions, Rating
from adaptd.daemon.domain.words import json_strings
from adaptd.daemon.store.database.database import Database
from tests.support.event_samples import a_correction, a_rating, an_interaction
from tests.support.ingesting import Ingesting, chunk

HALF = "\ud800"
REASONS = ("not_json", "not_utf8", "invalid")


@pytest.fixture
def ingesting() -> Iterator[Ingesting]:
    database = Database.open(":memory:")
    yield Ingesting(database)
    database.close()


def spellings(event: dict[str, Any]) -> list[bytes]:
    """The half letter as JSON escapes it, and as some encoders write it: not UTF-8."""
    return [
        json.dumps(event).encode(),
        json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogatepass"),
    ]


EVENTS = [
    an_interaction(id=HALF),
    an_interaction(model=HALF),
    an_interaction(user=f"ada{HALF}"),
    an_interaction(request={"messages": [{"role": "user", "content": HALF}]}),
    an_interaction(request={HALF: 1}),
    an_interaction(choices=[{"message": {"content": HALF}}]),
    an_interaction(params={"stop": [HALF]}),
    an_interaction(tags={"product": HALF}),
    an_interaction(tags={HALF: "cards"}),
    an_interaction(more=HALF),
    an_interaction(schema=HALF),
    a_rating("i1", user=HALF),
    a_correction("i1", HALF),
    a_correction("i1", message={"role": "assistant", "content": HALF}),
    a_rating(HALF),
]


@pytest.mark.parametrize("event", EVENTS)
async def test_an_event_with_half_a_letter_becomes_a_dead_letter(
    ingesting: Ingesting, event: dict[str, Any]
) -> None:
    good = an_interaction()
    for value in spellings(event):
        await ingesting.add(value, good, b'{"batch":[%b]}' % value)

    letters = await ingesting.ask("SELECT reason, detail FROM dead_letters")
    assert len(letters) == 4
    assert {letter["reason"] for letter in letters} <= set(REASONS)
    assert [row["n"] for row in await ingesting.ask("SELECT count(*) AS n FROM interactions")] == [
        1
    ]
    assert [row["n"] for row in await ingesting.ask("SELECT count(*) AS n FROM feedback")] == [0]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (ImportOptions(format="adaptd"), an_interaction(user=HALF)),
        (
            ImportOptions(format="openai", model="support"),
            {
                "messages": [
                    {"role": "user", "content": HALF},
                    {"role": "assistant", "content": "x"},
                ]
            },
        ),
        (
            ImportOptions(format="langfuse", ratings=(Rating(name="thumbs"),)),
            {"id": "s1", "traceId": HALF, "name": "thumbs", "value": 1},
        ),
    ],
)
def test_a_line_of_a_file_with_half_a_letter_is_refused(
    options: ImportOptions, line: dict[str, Any]
) -> None:
    lines = spellings(line)

    decoded = read_lines(
        lines, options, start=1, source="import:x", sender=import_sender("ada", options)
    )

    assert [refused.line for refused in refused_lines(decoded)] == [1, 2]
    assert decoded.interactions.num_rows == decoded.feedback.num_rows == 0


def test_a_key_of_the_log_may_be_any_bytes() -> None:
    assert chunk([b"\xed\xa0\x80"], start=0).dead_letters.num_rows == 1


def test_words_are_looked_for_in_bytes_that_are_no_utf_8() -> None:
    assert list(json_strings(b'{"a\xed\xa0\x80": "b"}')) == ["a\ufffd\ufffd\ufffd", "b"]
    assert list(json_strings(rb'"\ud800"')) == [r"\ud800"]
