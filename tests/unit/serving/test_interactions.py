import json
import time
from typing import Any

import msgspec
import pytest

from adaptd.daemon.wire.routes import Arm, Choice, Route
from adaptd.serving.capture.exchange import Exchange, RequestKind
from adaptd.serving.capture.interactions import join_chunks, to_interaction
from adaptd.serving.gateway.rewrite import decode_fields


def an_exchange(request: dict[str, Any] | None = None, **changes: Any) -> Exchange:
    body = request or {"model": "support", "messages": [{"role": "user", "content": "hi"}]}
    exchange = Exchange(
        id="i1", kind=RequestKind.CHAT, tenant="shop", gateway="g1", model="support"
    )
    exchange.fields = decode_fields(json.dumps(body).encode())
    exchange.route = Route(alias="support", base_digest="b", template_digest="t")
    exchange.choice = Choice(adapter=None, arm=Arm.LIVE, weight=1.0, rollout=None)
    exchange.status_code, exchange.complete = 200, True
    exchange.ended = exchange.began + 0.25
    for name, value in changes.items():
        setattr(exchange, name, value)
    return exchange


def test_rendered_fields_and_parameters_are_told_apart() -> None:
    request = {
        "model": "support",
        "messages": [],
        "tools": [{"type": "function"}],
        "response_format": {"type": "json_object"},
        "chat_template_kwargs": {"thinking": False},
        "temperature": 0.1,
        "stream": True,
        "stream_options": {},
        "metadata": {"a": "b"},
        "user": "ada",
    }

    found = to_interaction(an_exchange(request))

    assert found.request is not None
    assert set(found.request) == {"messages", "tools", "response_format", "chat_template_kwargs"}
    assert found.params == {"temperature": 0.1, "stream": True}
    assert found.latency_ms == pytest.approx(250, abs=1)
    assert (found.base_digest, found.template_digest) == ("b", "t")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "ok"),
        ({"status_code": 400}, "refused"),
        ({"status_code": 503}, "error"),
        ({"status_code": 408}, "timeout"),
        ({"status_code": 504}, "timeout"),
        ({"failed": True}, "error"),
        ({"complete": False}, "error"),
        ({"complete": False, "disconnected": True}, "aborted"),
        ({"status_code": None, "complete": False, "disconnected": True}, "aborted"),
    ],
)
def test_the_status_says_how_it_ended(changes: dict[str, Any], status: str) -> None:
    assert to_interaction(an_exchange(**changes)).status == status


def test_a_stream_cut_short_gives_what_came() -> None:
    deltas = [{"role": "assistant", "content": ""}, {"reasoning": "hm"}, {"content": "yes"}]
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]

    assert join_chunks(chunks) == [
        {
            "index": 0,
            "finish_reason": None,
            "message": {"role": "assistant", "content": "yes", "reasoning": "hm"},
        }
    ]


def test_several_choices_of_a_stream_are_kept_apart() -> None:
    chunks = [
        {"choices": [{"index": 1, "text": "b"}]},
        {"choices": [{"index": 0, "text": "a"}]},
        {"choices": [{"index": 1, "text": "B", "finish_reason": "stop"}]},
        {"choices": [], "usage": {}},
    ]

    assert join_chunks(chunks) == [
        {"index": 0, "finish_reason": None, "text": "a"},
        {"index": 1, "finish_reason": "stop", "text": "bB"},
    ]


@pytest.mark.parametrize(
    "answer",
    [
        b'{"choices": [{"delta": {"content": 7}}, {"delta": {"content": "x"}}]}',
        b'{"choices": 5}',
        b'{"choices": [{"message": {"content": "\xff"}}]}',
        b'{"choices": [{"message": {"content": "\\ud800"}}]}',
    ],
)
def test_an_answer_of_an_odd_shape_costs_the_texts_not_the_row(answer: bytes) -> None:
    found = to_interaction(an_exchange(answer=[answer], streamed=b"delta" in answer))

    assert found.id == "i1"
    assert found.texts == "dropped"
    assert found.choices is None


def test_a_request_that_nests_too_deep_costs_the_texts_not_the_row() -> None:
    deep: Any = "x"
    for _ in range(62):
        deep = [deep]

    found = to_interaction(an_exchange({"messages": deep}))

    assert (found.texts, found.request) == ("dropped", None)


def test_a_refused_request_has_no_arm() -> None:
    exchange = an_exchange(choice=None, route=None, status_code=404, fields=None)

    found = to_interaction(exchange)

    assert (found.arm, found.adapter, found.weight, found.status) == (None, None, None, "refused")
    assert b'"arm"' not in msgspec.json.encode(found)


def test_assembling_a_long_stream_takes_milliseconds() -> None:
    chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": "word "}}]}).encode()
    exchange = an_exchange(answer=[chunk] * 2000, streamed=True)

    began = time.thread_time()
    found = to_interaction(exchange)

    assert found.choices is not None
    assert len(found.choices[0]["message"]["content"]) == 10_000
    assert time.thread_time() - began < 1, "of a processor; 10 ms are usual"
