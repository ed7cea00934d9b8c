"""Messages reach the template as vLLM 0.32 hands them over (compared with its code by hand)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptd.daemon.dataset.messages import (
    RenderError,
    prepare_args,
    prepare_messages,
    prepare_tools,
)


def prepared(*messages: Any, knows_developer: bool = False) -> list[dict[str, Any]]:
    return prepare_messages(messages, knows_developer=knows_developer)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ("a", "a"),
        ([], ""),
        ([{"type": "text", "text": "a"}, "b", {"type": "refusal", "refusal": "c"}], "a\nb\nc"),
        ([{"type": "text", "text": ""}, {"type": "text", "text": "b"}, ""], "b"),
        ([{"type": "text", "text": None}, {"type": "thinking", "thinking": "hm"}], "hm"),
    ],
)
def test_content_becomes_one_text(content: Any, text: str) -> None:
    assert prepared({"role": "user", "content": content}) == [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    "content",
    [
        [{"type": ["text"]}],
        [None],
        [{"type": "image_url", "image_url": {"url": "data:"}}],
        [{"text": "a"}],
        [1],
        5,
        {"a": 1},
    ],
)
def test_what_is_no_text_is_refused_not_dropped(content: Any) -> None:
    with pytest.raises(RenderError):
        prepared({"role": "user", "content": content})


def test_unknown_fields_of_a_message_do_not_reach_the_template() -> None:
    message = {"role": "user", "content": "a", "name": "bob", "task": "t", "refusal": None, "x": 1}
    assert prepared(message) == [{"role": "user", "content": "a", "name": "bob", "task": "t"}]


def test_a_tool_call_has_vllms_order_and_its_arguments_as_an_object() -> None:
    call = {
        "type": "function",
        "index": 0,
        "id": "c1",
        "function": {"name": "f", "zeta": 1, "arguments": '{"b": 1, "a": "é"}'},
    }
    (message,) = prepared({"role": "assistant", "content": None, "tool_calls": [call]})
    (made,) = message["tool_calls"]
    assert list(made) == ["id", "function", "type", "index"]
    assert list(made["function"]) == ["arguments", "name", "zeta"]
    assert made["function"]["arguments"] == {"b": 1, "a": "é"}
    assert call["function"] == {"name": "f", "zeta": 1, "arguments": '{"b": 1, "a": "é"}'}


@pytest.mark.parametrize("arguments", ["", None, "{bad", "[1]", "42", []])
def test_arguments_that_are_no_object_become_an_empty_one(arguments: Any) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    (message,) = prepared({"role": "assistant", "content": "", "tool_calls": [call]})
    assert message["tool_calls"][0]["function"]["arguments"] == {}


def test_no_tool_calls_are_none() -> None:
    assert "tool_calls" not in prepared({"role": "assistant", "content": "a", "tool_calls": []})[0]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_goes_by_both_names(name: str) -> None:
    (message,) = prepared({"role": "assistant", "content": "a", name: "why"})
    assert (message["reasoning"], message["reasoning_content"]) == ("why", "why")


def test_developer_messages_become_one_system_message_in_front() -> None:
    said = prepared(
        {"role": "user", "content": "u"},
        {"role": "developer", "content": "d", "tools": []},
        {"role": "system", "content": "s"},
    )
    assert said == [{"role": "system", "content": "d\n\ns"}, {"role": "user", "content": "u"}]


def test_a_template_that_knows_developers_gets_them() -> None:
    message = {"role": "developer", "content": "d"}
    assert prepared(message, knows_developer=True) == [message | {"tools": None}]
    with pytest.raises(RenderError, match="tools"):
        prepared(message | {"tools": [{}]}, knows_developer=True)


def test_the_billing_header_of_a_system_text_is_dropped() -> None:
    header = "x-anthropic-billing-header: cch=1"
    assert prepared({"role": "system", "content": f"{header}\nrest"})[0]["content"] == "rest"
    assert prepared({"role": "system", "content": header})[0]["content"] == ""
    assert prepared({"role": "user", "content": header})[0]["content"] == header


def test_tools_have_vllms_fields_and_order() -> None:
    tool = {
        "x": 1,
        "type": "function",
        "function": {"strict": None, "junk": 1, "parameters": {"z": 1, "a": 2}, "name": "f"},
        "defer_loading": False,
    }
    (made,) = prepare_tools([tool]) or []
    assert list(made) == ["type", "function", "defer_loading"]
    assert list(made["function"]) == ["name", "description", "parameters", "defer_loading"]
    assert list(made["function"]["parameters"]) == ["z", "a"]
    assert prepare_tools(None) is None


def test_template_arguments_that_are_unset_or_ours_are_left_out() -> None:
    given = {"a": None, "b": "auto", "c": False, "add_generation_prompt": False, "messages": []}
    assert prepare_args(given) == {"c": False}
    assert prepare_args(None, reasoning_effort="none") == {
        "enable_thinking": False,
        "reasoning_effort": "none",
    }
    assert prepare_args({"enable_thinking": True}, reasoning_effort="none")["enable_thinking"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "tool_calls", "function", "name"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(json_values, max_size=3), json_values)
def test_whatever_a_sender_sends_is_prepared_or_refused(messages: list[Any], tools: Any) -> None:
    for attempt in (lambda: prepared(*messages), lambda: prepare_tools(tools)):
        try:
            attempt()
        except RenderError:
            continue
