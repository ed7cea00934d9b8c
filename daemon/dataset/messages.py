"""Messages and tools as vLLM 0.32 hands them to a chat template. Pure.

The rules follow vllm/renderers/chat_utils.py (parse_chat_messages) and hf.py; only text is
rendered. Orders of keys matter: a template may print a tool call or a tool as JSON.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adaptd.daemon.wire.errors import AdaptdError

Message = Mapping[str, Any]
_TEXT_PARTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
}
_CALL_FIELDS = ("id", "function", "type")
_FUNCTION_FIELDS = ("arguments", "name")
_BILLING_HEADER = "x-anthropic-billing-header"  # vLLM drops this line of system texts
_NOT_TEXT = object()
_UNSET = (None, "auto")


class RenderError(AdaptdError):
    """Messages that cannot be rendered: the example is left out, with this reason."""


def prepare_messages(messages: Sequence[Message], *, knows_developer: bool) -> list[dict[str, Any]]:
    """Prepare messages for the template. One without developer messages gets system ones.

    Raises:
        RenderError: an entry is not a message, or not text.
    """
    prepared = [_prepare_message(message) for message in messages]
    developers = [message for message in prepared if message["role"] == "developer"]
    if not developers:
        return prepared
    if not knows_developer:
        for message in developers:
            message["role"] = "system"
            message.pop("tools")
        return _join_system_messages(prepared)
    if any(message["tools"] is not None for message in developers):
        raise RenderError("message", "a developer's message brings tools", "Leave it out")
    return prepared


def prepare_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Prepare tools with vLLM's fields in vLLM's order. Raises RenderError."""
    return (
        None if tools is None else [_prepare_tool(tool) for tool in _require_list(tools, "tools")]
    )


def prepare_args(
    template_args: Mapping[str, Any] | None, *, reasoning_effort: str | None = None
) -> dict[str, Any]:
    """Prepare a chat request's template arguments, less those that the renderer sets."""
    given = dict(template_args or {})
    if reasoning_effort is not None:
        given.setdefault("enable_thinking", reasoning_effort != "none")
        given["reasoning_effort"] = reasoning_effort
    ours = ("messages", "add_generation_prompt", "continue_final_message", "chat_template")
    return {k: v for k, v in given.items() if v not in _UNSET and k not in ours}


def text_of(content: Any) -> str:
    """Join a content's text parts that are not empty by newlines. No content is the empty text.

    Raises:
        RenderError: a part is a picture, a sound, or no part at all.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "\n".join(_read_parts(_require_list(content, "content")))


def _prepare_message(message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise RenderError("message", "it has no role", "Leave it out")
    role, content = message["role"], message.get("content")
    prepared = {"role": role, "content": text_of(_drop_header(role, content))}
    if role == "assistant":
        prepared |= _prepare_assistant(message)
    elif role == "tool" and "tool_call_id" in message:
        prepared["tool_call_id"] = message["tool_call_id"]
    for name in ("name", "task"):
        if isinstance(message.get(name), str):
            prepared[name] = message[name]
    if role == "developer":
        prepared["tools"] = message.get("tools")
    return prepared


def _prepare_assistant(message: Message) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if calls := message.get("tool_calls"):
        found["tool_calls"] = [_prepare_call(call) for call in _require_list(calls, "tool_calls")]
    reasoning = message.get("reasoning")
    reasoning = message.get("reasoning_content") if reasoning is None else reasoning
    if reasoning is not None:
        found |= {"reasoning": reasoning, "reasoning_content": reasoning}
    return found


def _prepare_call(call: Any) -> dict[str, Any]:
    """Prepare a tool call with its arguments as an object; anything else becomes empty."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or call.get("type", "function") != "function":
        raise RenderError("message", "a tool call is not one of a function", "Leave it out")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError:
            arguments = None
    arguments = arguments if isinstance(arguments, Mapping) else {}
    ordered = _order_fields({**function, "arguments": arguments}, _FUNCTION_FIELDS)
    return _order_fields({**call, "function": ordered}, _CALL_FIELDS)


def _prepare_tool(tool: Any) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RenderError("tools", "a tool is not a function with a name", "Leave it out")
    made: dict[str, Any] = {name: function.get(name) for name in ("name", "description")}
    made["parameters"] = function.get("parameters")
    defer = tool.get("defer_loading")
    later = {"strict": function.get("strict"), "defer_loading": function.get("defer_loading")}
    if later["defer_loading"] is None:
        later["defer_loading"] = defer
    made |= {name: value for name, value in later.items() if value is not None}
    outer: dict[str, Any] = {"type": "function", "function": made}
    return outer if defer is None else outer | {"defer_loading": defer}


def _read_parts(parts: Sequence[Any]) -> Iterable[str]:
    for part in parts:
        text = part
        if isinstance(part, Mapping):
            text = part.get(_TEXT_PARTS.get(str(part.get("type")), ""), _NOT_TEXT)
            text = "" if text is None else text
        if not isinstance(text, str):
            raise RenderError("message", "a part of its content is not text", "Leave it out")
        if text:
            yield text


def _drop_header(role: str, content: Any) -> Any:
    if role != "system":
        return content
    parts = [content] if isinstance(content, str) else content
    if not isinstance(parts, list):
        return content
    kept = [_drop_header_line(part) for part in parts]
    return [part for part in kept if part is not None]


def _drop_header_line(part: Any) -> Any:
    is_text = isinstance(part, Mapping) and part.get("type") == "text"
    text = part.get("text") if is_text else part
    if not isinstance(text, str) or not text.startswith(_BILLING_HEADER):
        return part
    return text.partition("\n")[2] or None


def _join_system_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join all system messages to one in front, where one stands elsewhere."""
    system = [message for message in messages if message["role"] == "system"]
    if len(system) == 1 and messages[0]["role"] == "system":
        return messages
    text = "\n\n".join(message["content"] for message in system if message["content"])
    others = [message for message in messages if message["role"] != "system"]
    return [{"role": "system", "content": text}, *others]


def _order_fields(fields: Mapping[str, Any], first: Sequence[str]) -> dict[str, Any]:
    known = {name: fields[name] for name in first if name in fields}
    return known | {name: value for name, value in fields.items() if name not in known}


def _require_list(value: Any, what: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise RenderError("message", f"its {what} is not a list", "Leave it out")
    return value
