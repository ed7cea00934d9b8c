import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from adaptd.serving.gateway.rewrite import (
    EventSplitter,
    Mask,
    asks_for_usage,
    data_of,
    decode_fields,
    request_for,
    with_data,
)

VERSION = "support@v3-1f00ba42"
BASE = "smollm2-135m"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=8), json_values, max_size=5)


def a_mask(*, hide_usage: bool = False) -> Mask:
    return Mask(alias="support", response_id="our-id", base=BASE, hide_usage=hide_usage)


def fields_of(document: Any) -> dict[str, Any]:
    fields = decode_fields(json.dumps(document).encode())
    assert fields is not None
    return fields


@given(objects, st.text(max_size=5))
def test_a_request_keeps_everything_but_model_and_metadata(body: dict, spaces: str) -> None:
    body |= {"model": "support", "metadata": {"a": "b"}, "stream": False}
    indent = len(spaces) or None
    fields = decode_fields(json.dumps(body, indent=indent).encode())
    assert fields is not None

    sent = json.loads(request_for(fields, VERSION))

    assert sent == {k: v for k, v in body.items() if k != "metadata"} | {"model": VERSION}


def test_a_model_given_twice_is_sent_once() -> None:
    fields = decode_fields(b'{"model":"support","mod\\u0065l":"support@v1-00000000"}')
    assert fields is not None

    assert request_for(fields, VERSION).count(b"model") == 1


def test_the_usage_of_a_stream_is_always_asked_for() -> None:
    plain = fields_of({"stream": True})
    asking = fields_of({"stream": True, "stream_options": {"include_usage": True}})
    other = fields_of({"stream": True, "stream_options": {"continuous_usage_stats": False}})

    assert not asks_for_usage(plain)
    assert asks_for_usage(asking)
    assert json.loads(request_for(plain, VERSION))["stream_options"] == {"include_usage": True}
    assert json.loads(request_for(other, VERSION))["stream_options"] == {
        "continuous_usage_stats": False,
        "include_usage": True,
    }
    assert "stream_options" not in json.loads(request_for(fields_of({}), VERSION))


@given(objects)
def test_an_answer_shows_alias_and_our_id_and_is_otherwise_unchanged(body: dict) -> None:
    body |= {"model": VERSION, "id": "chatcmpl-1", "choices": [{"text": f"I am {BASE}"}]}
    body.pop("error", None)

    masked = json.loads(a_mask().document(fields_of(body)))

    assert masked == body | {"model": "support", "id": "our-id"}


def test_an_error_names_neither_version_nor_base() -> None:
    words = f"`{VERSION}` of {BASE} in /a/{VERSION}/b; not my-{BASE} or {BASE}x"
    body = {"error": {"message": words, "code": 404}, "model": VERSION}

    masked = json.loads(a_mask().document(fields_of(body)))

    assert masked["error"]["message"] == (
        f"`support` of support in /a/support/b; not my-{BASE} or {BASE}x"
    )
    assert masked["model"] == "support"


def test_usage_is_hidden_only_where_it_was_not_asked_for() -> None:
    chunk = {"id": "1", "model": VERSION, "choices": [{"index": 0}], "usage": None}
    last = {"id": "1", "model": VERSION, "choices": [], "usage": {"total_tokens": 3}}

    hiding, showing = a_mask(hide_usage=True), a_mask()

    assert "usage" not in json.loads(hiding.chunk(fields_of(chunk)) or b"")
    assert hiding.chunk(fields_of(last)) is None
    assert json.loads(showing.chunk(fields_of(last)) or b"")["usage"] == {"total_tokens": 3}


events = st.lists(
    st.one_of(
        st.builds(
            lambda text: b"data: " + json.dumps({"model": VERSION, "t": text}).encode(), st.text()
        ),
        st.just(b": keep-alive"),
        st.just(b"data: [DONE]"),
        st.just(b"event: error\ndata: {}"),
    ),
    max_size=6,
)


@given(events, st.data(), st.sampled_from([b"\n\n", b"\r\n\r\n"]))
def test_events_are_the_same_however_the_stream_is_cut(
    sent: list[bytes], data: st.DataObject, ending: bytes
) -> None:
    stream = b"".join(event + ending for event in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    splitter = EventSplitter()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += splitter.feed(stream[start:end], last=False)
    found += splitter.feed(b"", last=True)

    assert found == sent


def test_an_unfinished_last_event_is_given_at_the_end() -> None:
    splitter = EventSplitter()

    assert splitter.feed(b"data: a\n\ndata: b", last=False) == [b"data: a"]
    assert splitter.feed(b"", last=True) == [b"data: b"]


def test_data_lines_are_joined_and_replaced() -> None:
    event = b"event: x\ndata: {\ndata:}\nid: 1"

    assert data_of(event) == b"{\n}"
    assert data_of(b": comment") is None
    assert with_data(event, b"{}") == b"event: x\nid: 1\ndata: {}\n\n"
