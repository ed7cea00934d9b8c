"""Read a client's request: check its fields, note its conversation, user and tags."""

from typing import Annotated

import msgspec

from adaptd.daemon.wire.identity import MAX_NAME
from adaptd.daemon.wire.texts import NOT_DECODED
from adaptd.serving.capture.exchange import Exchange, Fields
from adaptd.serving.gateway.asgi import Scope, find_header
from adaptd.serving.gateway.refusals import bad_request
from adaptd.serving.gateway.rewrite import decode_fields

CONVERSATION_HEADER = b"x-adaptd-conversation"

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
TagName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
TagValue = Annotated[str, msgspec.Meta(max_length=512)]
Tags = Annotated[dict[TagName, TagValue], msgspec.Meta(max_length=16)]


class _KnownFields(msgspec.Struct, frozen=True):
    """Fields that the gateway itself needs. Stricter than vLLM, which takes `"yes"` for true."""

    model: Name
    stream: bool | None = None
    stream_options: dict[str, bool | None] | None = None
    metadata: Tags | None = None
    user: Name | None = None


def note_headers(exchange: Exchange, scope: Scope) -> None:
    """Note the client's own request id and conversation."""
    if sent := find_header(scope, b"x-request-id"):
        exchange.client_request_id = sent[:MAX_NAME]
    conversation = find_header(scope, CONVERSATION_HEADER)
    if conversation and len(conversation) > MAX_NAME:
        raise bad_request(f"X-Adaptd-Conversation is longer than {MAX_NAME} characters.")
    exchange.conversation = conversation or None


def note_body(exchange: Exchange, body: bytes, *, allowed: frozenset[str]) -> Fields:
    """Check a body, note its model, user, conversation and tags, and return its fields.

    The model is noted first, so that a refusal counts for the alias that was asked.

    Raises:
        RefusalError: it is not an object, holds a field that is not allowed, or a wrong value.
    """
    fields = decode_fields(body)
    if fields is None:
        raise bad_request("The body is not a JSON object.")
    exchange.fields = {name: raw for name, raw in fields.items() if name in allowed}
    exchange.texts_bytes += len(body)
    exchange.model = _read_model(fields) or exchange.model
    if unknown := sorted(fields.keys() - allowed):
        raise bad_request(f"Unrecognized request argument: {unknown[0][:64]}", param=unknown[0])
    known = _decode_known(fields)
    exchange.user = known.user
    _note_metadata(exchange, known.metadata or {})
    return fields


def _read_model(fields: Fields) -> str | None:
    try:
        return msgspec.json.decode(fields["model"], type=Name)
    except (KeyError, *NOT_DECODED):
        return None


def _decode_known(fields: Fields) -> _KnownFields:
    ours = {name: fields[name] for name in _KnownFields.__struct_fields__ if name in fields}
    try:
        return msgspec.json.decode(msgspec.json.encode(ours), type=_KnownFields)
    except NOT_DECODED as error:
        # msgspec says what it expected and where (`$.model`), never what it found.
        problem = str(error)
        where = problem.partition("$.")[2].partition("`")[0].partition("[")[0]
        raise bad_request(f"The request is not valid: {problem}", param=where or None) from error


def _note_metadata(exchange: Exchange, metadata: dict[str, str]) -> None:
    # `conversation` names the unit unless the header did; everything else is a tag.
    named = metadata.pop("conversation", None)
    if named and len(named) > MAX_NAME:
        raise bad_request(
            f"metadata.conversation is longer than {MAX_NAME} characters.", param="metadata"
        )
    exchange.conversation = exchange.conversation or named or None
    exchange.tags = metadata or None
