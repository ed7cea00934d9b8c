"""Decoding: whatever a sender sends becomes a row or a dead letter, and the stream goes on."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptd.consumers.decoding.decode import SIGNED, Record, decode
from adaptd.consumers.decoding.json_events import MAX_BATCH, MAX_DEPTH, MAX_EVENT_BYTES
from adaptd.daemon.domain.ingest import Decoded, Span
from adaptd.daemon.store.database.database import Database
from tests.support.event_samples import a_correction, a_rating, an_interaction, as_bytes
from tests.support.ingesting import EVENTS, UNSIGNED, Ingesting, chunk


def decoded(*values: Any, **options: Any) -> Decoded:
    return chunk(values, start=0, **options)


def only_letter(found: Decoded) -> dict[str, Any]:
    assert found.interactions.num_rows == found.feedback.num_rows == 0
    [letter] = found.dead_letters.to_pylist()
    return letter


def nested(levels: int) -> Any:
    return {"more": nested(levels - 1)} if levels else "end"


_scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
)
_json = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_finite = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_fields = st.sampled_from(
    [*an_interaction(), *a_correction("i1"), "usage", "scale", "choice", "weight", "latency_ms"]
)


@st.composite
def _changed_event(draw: st.DrawFn) -> bytes:
    """A good event with arbitrary values in a few fields."""
    event = draw(
        st.sampled_from([an_interaction(id="i"), a_rating("i", id="f"), a_correction("i")])
    )
    event |= draw(st.dictionaries(_fields, _json, max_size=3))
    return json.dumps(event, allow_nan=True).encode()


@st.composite
def _changed_fields(draw: st.DrawFn) -> dict[str, Any]:
    event = draw(
        st.sampled_from([an_interaction(id="i"), a_rating("i", id="f"), a_correction("i", id="f")])
    )
    free = st.sampled_from(["request", "choices", "params", "message", "value", "tags", "time"])
    return event | draw(st.dictionaries(_fields | free, _finite, max_size=3))


@st.composite
def _damaged_event(draw: st.DrawFn) -> bytes:
    """A good event with bytes removed, inserted or overwritten."""
    raw = bytearray(as_bytes(an_interaction(id="i")))
    start = draw(st.integers(0, len(raw)))
    raw[start : start + draw(st.integers(0, 20))] = draw(st.binary(max_size=10))
    return bytes(raw)


_messages = st.one_of(
    st.none(),
    st.binary(max_size=60),
    _changed_event(),
    _damaged_event(),
    st.lists(_json, max_size=4).map(lambda batch: json.dumps({"batch": batch}).encode()),
)


@pytest.fixture(scope="module")
def store() -> Iterator[Ingesting]:
    database = Database.open(":memory:")
    yield Ingesting(database)
    database.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=st.lists(_messages, max_size=6), unsigned=st.booleans())
def test_every_record_becomes_rows_or_dead_letters_that_the_store_takes(
    store: Ingesting, values: list[bytes | None], *, unsigned: bool
) -> None:
    sender = UNSIGNED if unsigned else SIGNED
    kinds = ("interaction", "feedback", None)
    start = store.next
    records = [
        Record(value, EVENTS.topic, 0, start + index, sender, kinds[index % 3])
        for index, value in enumerate(values)
    ]
    end = start + len(records)

    found = decode(records, source="kafka", spans=[Span(EVENTS, start, end)])

    tables = (found.interactions, found.feedback, found.dead_letters)
    places = [
        (row["position"], row["batch_index"])
        for table in tables
        for row in table.select(["position", "batch_index"]).to_pylist()
    ]
    assert {position for position, _ in places} == set(range(start, end))
    assert len(places) == len(set(places))

    async def store_it() -> None:
        await store.pin()
        written = await store.sink.write(found)
        assert not written.unstorable

    asyncio.run(store_it())
    store.next = end


@settings(max_examples=150, deadline=None)
@given(event=_changed_fields())
def test_the_fast_way_reads_what_the_slow_way_reads(event: dict[str, Any]) -> None:
    odd = event | {"a field that nobody knows": 1}  # only the slow way knows what to do with it

    fast, slow = decoded(event), decoded(odd)

    for table in ("interactions", "feedback", "dead_letters"):
        assert _read(getattr(fast, table)) == _read(getattr(slow, table))


def _read(table: Any) -> list[dict[str, Any]]:
    rows = table.drop_columns([name for name in ("extra", "bytes") if name in table.column_names])
    free = ("request", "choices", "params", "message")
    return [
        {
            name: json.loads(value) if name in free and value else value
            for name, value in row.items()
        }
        for row in rows.to_pylist()
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff\xfe{}", "not_utf8"),
        (b'{"id": "caf\xe9"}', "not_utf8"),
        (b'{"id": "i1", "ti', "not_json"),
        (b"", "not_json"),
        (b"[1, 2]", "not_an_object"),
        (as_bytes(an_interaction(id=7)), "invalid"),
        (as_bytes(an_interaction(model=None)), "invalid"),
        (as_bytes(an_interaction(id="i" * 129)), "invalid"),
        (as_bytes(an_interaction(time="2026-11-01T12:00:00")), "invalid"),
        (as_bytes(an_interaction(time="0001-01-01T00:00:00+12:00")), "time_out_of_range"),
        (as_bytes(an_interaction(weight=1.5)), "invalid"),
        (as_bytes(an_interaction(usage={"prompt_tokens": 2**70})), "invalid"),
        (as_bytes(an_interaction(request=nested(MAX_DEPTH))), "too_deep"),
        (as_bytes(an_interaction(request=["a list"])), "invalid"),
        (as_bytes(an_interaction(choices=[{}, "no object"])), "invalid"),
        (as_bytes(an_interaction()).replace(b"Where", b"\xffWhere"), "not_utf8"),
        (as_bytes(an_interaction(request={"n": 0})).replace(b'"n":0', b'"n":1e999'), "not_json"),
        (as_bytes(a_correction("i1", text=None, message={})), "incomplete"),
        (b'{"request":' * 50_000 + b"1" + b"}" * 50_000, "too_deep"),
        (b" " * (MAX_EVENT_BYTES + 1), "too_large"),
        (as_bytes(an_interaction(schema="adaptd.interaction/2")), "unknown_version"),
        (as_bytes(an_interaction(schema="other/1")), "unknown_schema"),
        (as_bytes(an_interaction(schema=None)), "unknown_schema"),
        (as_bytes(a_correction("i1", text=" ")), "incomplete"),
        (as_bytes(a_rating("i1", value=3)), "rating_without_scale"),
        (b'{"batch": []}', "empty_batch"),
        (b'{"batch": 1}', "invalid"),
        (as_bytes({"batch": [1] * (MAX_BATCH + 1)}), "batch_too_long"),
    ],
)
def test_poison_becomes_a_dead_letter_with_its_bytes_place_and_reason(
    value: bytes, reason: str
) -> None:
    letter = only_letter(chunk([value], start=41))

    assert letter["reason"] == reason
    assert letter["bytes"] == value
    assert (letter["topic"], letter["partition"], letter["position"]) == ("events", 0, 41)
    assert letter["detail"]


def test_a_record_without_a_value_becomes_a_dead_letter() -> None:
    record = Record(None, "events", 0, 5, SIGNED, "interaction")

    letter = only_letter(decode([record], source="kafka", spans=[]))

    assert (letter["reason"], letter["bytes"]) == ("no_value", None)


def test_an_event_without_schema_is_what_its_topic_holds() -> None:
    record = Record(as_bytes(a_rating("i1", schema=None)), "events", 0, 0, SIGNED, "feedback")

    assert decode([record], source="kafka", spans=[]).feedback.num_rows == 1


def test_a_newer_minor_version_is_read() -> None:
    found = decoded(an_interaction(schema="adaptd.interaction/1.4", mood="good"))

    assert json.loads(found.interactions["extra"][0].as_py()) == {"mood": "good"}


def test_unknown_fields_are_kept_as_extra_also_those_of_usage() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "cached_tokens": 2}

    found = decoded(an_interaction(region="eu", usage=usage))

    [row] = found.interactions.to_pylist()
    assert json.loads(row["extra"]) == {"region": "eu", "usage": {"cached_tokens": 2}}
    assert row["usage"] == {"prompt_tokens": 3, "completion_tokens": 4}


def test_request_and_choices_come_through_unchanged() -> None:
    event = an_interaction(
        request={"messages": [{"content": 'ünï "\\u0000" \U0001f600'}], "n": 1.5}
    )

    [row] = decoded(event).interactions.to_pylist()

    assert json.loads(row["request"]) == event["request"]
    assert json.loads(row["choices"]) == event["choices"]
    assert row["tags"] == [("product", "cards")]


def test_a_long_conversation_is_not_deep() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "{[{["}]}] * 200

    [row] = decoded(an_interaction(request={"messages": messages})).interactions.to_pylist()

    assert json.loads(row["request"]) == {"messages": messages}


@pytest.mark.parametrize("kind", ["interaction", None])
def test_of_a_good_batch_only_what_cannot_be_used_is_buried(kind: Any) -> None:
    events = [an_interaction(id=f"i{number}") for number in range(5)]
    events[1]["time"] = "1969-12-31T23:59:59Z"
    events[3]["request"] = nested(MAX_DEPTH)
    record = Record(as_bytes({"batch": events}), "events", 0, 7, SIGNED, kind)

    found = decode([record], source="kafka", spans=[])

    assert found.interactions["batch_index"].to_pylist() == [0, 2, 4]
    letters = found.dead_letters.to_pylist()
    assert [letter["batch_index"] for letter in letters] == [1, 3]
    assert [letter["bytes"] for letter in letters] == [as_bytes(events[1]), as_bytes(events[3])]


@pytest.mark.parametrize("envelope", [{}, {"sent_by": "sdk 1.2"}])
def test_a_batch_is_taken_apart_and_a_bad_event_in_it_buried_alone(
    envelope: dict[str, str],
) -> None:
    batch = [an_interaction(), {"id": 1}, a_rating("i1"), "text"]

    found = decoded({"batch": batch} | envelope)

    assert found.interactions["batch_index"].to_pylist() == [0]
    assert found.feedback["batch_index"].to_pylist() == [2]
    assert found.dead_letters["batch_index"].to_pylist() == [1, 3]
    assert found.dead_letters["bytes"].to_pylist() == [b'{"id":1}', b'"text"']


def test_an_event_that_speaks_of_batches_is_one_event() -> None:
    found = decoded(an_interaction(batch=["a", "b"], tags={"batch": "7"}))

    [row] = found.interactions.to_pylist()
    assert json.loads(row["extra"]) == {"batch": ["a", "b"]}


def test_unsigned_feedback_may_only_come_from_permitted_sources() -> None:
    found = decoded(
        a_correction("i1", source="agent"), a_correction("i1", source="user"), sender=UNSIGNED
    )

    assert found.feedback["origin"].to_pylist() == ["user"]
    assert found.dead_letters["reason"].to_pylist() == ["source_not_permitted"]


def test_unsigned_arms_are_kept_but_not_trusted() -> None:
    event = an_interaction(arm="canary", weight=0.25, unit="c1", adapter="support@v1-00000000")

    [unsigned] = decoded(event, sender=UNSIGNED).interactions.to_pylist()
    [signed] = decoded(event, sender=SIGNED).interactions.to_pylist()

    assert (unsigned["arm"], unsigned["weight"], unsigned["unit"]) == ("canary", 0.25, "c1")
    assert (unsigned["trusted"], signed["trusted"]) == (False, True)
