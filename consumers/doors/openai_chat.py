"""OpenAI's chat format for fine-tuning, one conversation a line → adaptd's events. Pure.

Stands alone as one format of `file_import`: each has a module.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from adaptd.consumers.decoding.json_events import UnreadableError
from adaptd.consumers.doors.import_options import ImportOptions, content_id
from adaptd.daemon.wire.events import Feedback, Interaction, encode_event

_REQUEST_FIELDS = ("tools", "functions", "parallel_tool_calls", "response_format")


def chat_events(line: Any, options: ImportOptions) -> list[bytes]:
    """Make an interaction of the last assistant turn; with a reviewer, also a correction.

    Raises:
        UnreadableError: not_chat, no_answer, or invalid.
    """
    messages = _read_messages(line)
    *asked, answer = [_without_weight(message) for message in messages]
    if answer["role"] != "assistant":
        raise UnreadableError("no_answer", "its last message is not the assistant's")
    if not asked:
        raise UnreadableError("no_question", "nothing comes before the answer")
    request = {"messages": asked} | {
        name: line[name] for name in _REQUEST_FIELDS if line.get(name) is not None
    }
    made = content_id("openai", options.model, options.tenant, request, answer)
    interaction = Interaction(
        id=made,
        time=options.time,
        model=options.model or "",
        tenant=options.tenant,
        conversation=made,
        request=request,
        choices=[{"index": 0, "message": answer, "finish_reason": "stop"}],
    )
    events = [encode_event(interaction)]
    if options.reviewer is not None and messages[-1].get("weight") != 0:
        events.append(encode_event(_make_correction(made, answer, options)))
    return events


def _make_correction(interaction: str, answer: dict[str, Any], options: ImportOptions) -> Feedback:
    text = answer.get("content")
    plain = isinstance(text, str) and answer.keys() <= {"role", "content"}
    return Feedback(
        id=content_id("openai", interaction, "correction", options.reviewer),
        time=options.time,
        interaction=interaction,
        kind="correction",
        source="reviewer",
        user=options.reviewer,
        tenant=options.tenant,
        text=text if plain else None,
        message=None if plain else answer,
    )


def _read_messages(line: Any) -> Sequence[Mapping[str, Any]]:
    found = line.get("messages") if isinstance(line, dict) else None
    if not isinstance(found, list) or not found:
        raise UnreadableError("not_chat", 'a line is an object with a list of "messages"')
    for message in found:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise UnreadableError("not_chat", "a message is an object with a role")
    return found


def _without_weight(message: Mapping[str, Any]) -> dict[str, Any]:
    # `weight` says what to train on. The field is not a part of the message.
    return {name: value for name, value in message.items() if name != "weight"}
