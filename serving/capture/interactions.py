"""Turn an exchange into an interaction event. Pure, and too slow for the request's path."""

from collections.abc import Callable
from typing import Any

import msgspec

from adaptd.daemon.wire.events import Interaction, Usage
from adaptd.daemon.wire.nesting import nests_deeper
from adaptd.daemon.wire.texts import NOT_DECODED
from adaptd.serving.capture.exchange import Exchange, Fields

# Fields that are rendered into the prompt; the rest of a request are parameters.
RENDERED = frozenset(
    {
        "messages",
        "prompt",
        "suffix",
        "tools",
        "tool_choice",
        "response_format",
        "chat_template_kwargs",
    }
)
MAX_DEPTH = 60  # the daemon refuses an event of 64 levels as an attack
_NO_PARAMETERS = RENDERED | {"model", "metadata", "user", "stream_options"}
_TEXTS = ("content", "reasoning", "reasoning_content", "refusal")  # of a chat delta; they add up


def to_interaction(exchange: Exchange) -> Interaction:
    """Build the event of one exchange. Only texts are left out where they cannot be decoded."""
    try:
        interaction = _build_interaction(exchange)
        texts = [interaction.request, interaction.choices, interaction.params]
        return without_texts(interaction) if nests_deeper(texts, MAX_DEPTH) else interaction
    except Exception:  # noqa: BLE001 - an answer of an odd shape must not cost the row
        exchange.drop_texts()
        return _build_interaction(exchange)


def without_texts(interaction: Interaction) -> Interaction:
    """Copy an interaction without its request, choices and parameters."""
    return msgspec.structs.replace(
        interaction, request=None, choices=None, params=None, texts="dropped"
    )


def _build_interaction(exchange: Exchange) -> Interaction:
    route, choice = exchange.route, exchange.choice
    return Interaction(
        id=exchange.id,
        time=exchange.arrived_at,
        model=exchange.model,
        tenant=exchange.tenant,
        adapter=choice.adapter if choice else None,
        unit=exchange.unit,
        unit_kind=exchange.unit_kind,
        conversation=exchange.conversation,
        user=exchange.user,
        client_request_id=exchange.client_request_id,
        request=_decode_fields(exchange.fields, lambda name: name in RENDERED),
        choices=_decode_choices(exchange),
        base_digest=route.base_digest if route else None,
        template_digest=route.template_digest if route else None,
        arm=choice.arm.value if choice else None,
        weight=choice.weight if choice else None,
        rollout=choice.rollout if choice else None,
        gateway=exchange.gateway,
        status=exchange.status,
        latency_ms=_elapsed_ms(exchange.began, exchange.ended),
        ttft_ms=_elapsed_ms(exchange.began, exchange.first_byte) if exchange.streamed else None,
        usage=_decode_usage(exchange.usage),
        params=_decode_fields(exchange.fields, lambda name: name not in _NO_PARAMETERS),
        tags=exchange.tags,
        texts="dropped" if exchange.texts_dropped else "kept",
    )


def _decode_fields(fields: Fields | None, wanted: Callable[[str], bool]) -> dict[str, Any] | None:
    if fields is None:
        return None
    return {name: msgspec.json.decode(raw) for name, raw in fields.items() if wanted(name)} or None


def _decode_usage(document: bytes | None) -> Usage | None:
    try:
        return None if document is None else msgspec.json.decode(document, type=Usage)
    except NOT_DECODED:
        return None


def _elapsed_ms(began: float, ended: float | None) -> float | None:
    return None if ended is None else round((ended - began) * 1000, 3)


def _decode_choices(exchange: Exchange) -> list[dict[str, Any]] | None:
    documents = [msgspec.json.decode(document) for document in exchange.answer]
    if exchange.streamed:
        return join_chunks(documents) or None
    found = [choice for document in documents for choice in document.get("choices") or ()]
    return [_tidy_choice(choice) for choice in found] or None


def _tidy_choice(choice: dict[str, Any]) -> dict[str, Any]:
    """Keep index, finish reason, and the message or the text; leave out nulls and log-probs."""
    kept = {"index": choice.get("index", 0), "finish_reason": choice.get("finish_reason")}
    if isinstance(message := choice.get("message"), dict):
        kept["message"] = {
            name: value for name, value in message.items() if value not in (None, [])
        }
    if "text" in choice:
        kept["text"] = choice["text"]
    return kept


def join_chunks(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the chunks of a stream up to its choices; a stream cut short gives as much as came."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for part in chunk.get("choices") or ():
            index = part.get("index", 0)
            choice = choices.setdefault(index, {"index": index, "finish_reason": None})
            choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]
            if "text" in part:
                choice["text"] = choice.get("text", "") + (part["text"] or "")
            if isinstance(delta := part.get("delta"), dict):
                _add_delta(choice.setdefault("message", {"role": "assistant"}), delta)
    for choice in choices.values():
        if calls := choice.get("message", {}).get("tool_calls"):
            choice["message"]["tool_calls"] = [calls[index] for index in sorted(calls)]
    return [choices[index] for index in sorted(choices)]


def _add_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    if role := delta.get("role"):
        message["role"] = role
    for name in _TEXTS:
        if delta.get(name) is not None:
            message[name] = message.get(name, "") + delta[name]
    for part in delta.get("tool_calls") or ():
        _add_tool_call(message.setdefault("tool_calls", {}), part)


def _add_tool_call(calls: dict[int, dict[str, Any]], part: dict[str, Any]) -> None:
    call = calls.setdefault(
        part.get("index", 0), {"type": "function", "function": {"name": "", "arguments": ""}}
    )
    for name in ("id", "type"):
        if part.get(name):
            call[name] = part[name]
    # The name of a call comes once, its arguments in pieces; adding up serves both.
    for name, piece in (part.get("function") or {}).items():
        if isinstance(piece, str):
            call["function"][name] = call["function"].get(name, "") + piece
