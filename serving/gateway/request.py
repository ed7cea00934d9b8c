"""Reads a client's request: which fields it may hold, and what it says of itself."""

from typing import Annotated

import msgspec

from adaptd.daemon.wire.identity import MAX_NAME
from adaptd.daemon.wire.texts import NOT_DECODED
from adaptd.serving.gateway.asgi import Scope, header
from adaptd.serving.gateway.exchange import Exchange
from adaptd.serving.gateway.refusals import RefusalError, bad_request
from adaptd.serving.gateway.rewrite import Fields, decode_fields

CONVERSATION_HEADER = b"x-adaptd-conversation"

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
TagName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
TagValue = Annotated[str, msgspec.Meta(max_length=512)]
Tags = Annotated[dict[TagName, TagValue], msgspec.Meta(max_length=16)]


class _Known(msgspec.Struct, frozen=True):
    """The fields the gateway itself needs. Stricter than vLLM, which takes `"yes"` for true."""

    model: Name
    stream: bool | None = None
    stream_options: dict[str, bool | None] | None = None
    metadata: Tags | None = None
    user: Name | None = None


def note_headers(exchange: Exchange, scope: Scope) -> None:
    """Take the client's own request id and conversation."""
    if sent := header(scope, b"x-request-id"):
        exchange.client_request_id = sent[:MAX_NAME]
    conversation = header(scope, CONVERSATION_HEADER)
    if conversation and len(conversation) > MAX_NAME:
        raise bad_request(f"X-Adaptd-Conversation is longer than {MAX_NAME} characters.")
    exchange.conversation = conversation or None


def note_body(exchange: Exchange, body: bytes, *, allowed: frozenset[str]) -> Fields:
    """Check a body, note what it says and return its fields.

    The model is noted first, so that a refusal counts for the alias it was meant for.

    Raises:
        RefusalError: it is not an object, holds a field that is not allowed, or a wrong value.
    """
    fields = decode_fields(body)
    if fields is None:
        raise bad_request("The body is not a JSON object.")
    exchange.fields = {name: raw for name, raw in fields.items() if name in allowed}
    exchange.texts_bytes += len(body)
    exchange.model = _model_of(fields) or exchange.model
    if unknown := sorted(fields.keys() - allowed):
        raise bad_request(f"Unrecognized request argument: {unknown[0][:64]}", param=unknown[0])
    known = _known(fields)
    exchange.user = known.user
    _note_metadata(exchange, known.metadata or {})
    return fields


def _model_of(fields: Fields) -> str | None:
    try:
        return msgspec.json.decode(fields["model"], type=Name)
    except (KeyError, *NOT_DECODED):
        return None


def _known(fields: Fields) -> _Known:
    ours = {name: fields[name] for name in _Known.__struct_fields__ if name in fields}
    try:
        return msgspec.json.decode(msgspec.json.encode(ours), type=_Known)
    except NOT_DECODED as error:
        raise _wrong_value(str(error)) from error


def _wrong_value(problem: str) -> RefusalError:
    """msgspec says what it expected and where (`$.model`), never what it found."""
    where = problem.partition("$.")[2].partition("`")[0].partition("[")[0]
    return bad_request(f"The request is not valid: {problem}", param=where or None)


def _note_metadata(exchange: Exchange, metadata: dict[str, str]) -> None:
    """`conversation` names the unit unless the header did; everything else is a tag."""
    named = metadata.pop("conversation", None)
    if named and len(named) > MAX_NAME:
        raise bad_request(
            f"metadata.conversation is longer than {MAX_NAME} characters.", param="metadata"
        )
    exchange.conversation = exchange.conversation or named or None
    exchange.tags = metadata or None
