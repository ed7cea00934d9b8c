"""Rewrite documents between client and vLLM: the alias outside, the version inside. Pure.

Only the top level of a document is decoded; messages and choices pass as the bytes they are.
"""

import re

import msgspec

from adaptd.daemon.wire.routes import VERSION_NAME
from adaptd.daemon.wire.texts import NOT_DECODED
from adaptd.serving.capture.exchange import Fields

_DECODER = msgspec.json.Decoder(Fields)
_ENCODER = msgspec.json.Encoder()
_VERSION = re.compile(VERSION_NAME.pattern.strip("^$").encode())
_EVENT_END = re.compile(rb"\r?\n\r?\n")
_LINE_END = re.compile(rb"\r?\n")


def decode_fields(document: bytes) -> Fields | None:
    """Decode the top level of a JSON object; None where it is not one or nests too deep to read."""
    try:
        return _DECODER.decode(document)
    except NOT_DECODED:
        return None


def request_for(fields: Fields, served: str) -> bytes:
    """Build vLLM's body: the version as `model`, no `metadata`, a stream's usage asked for."""
    body = {name: value for name, value in fields.items() if name != "metadata"}
    body["model"] = _encode_raw(served)
    if is_true(fields, "stream"):
        options = _read_stream_options(fields)
        options["include_usage"] = msgspec.Raw(b"true")
        body["stream_options"] = _encode_raw(options)
    return _ENCODER.encode(body)


def is_set(fields: Fields, name: str) -> bool:
    """True where a field is there and not null."""
    return bytes(fields.get(name, b"null")) != b"null"


def is_true(fields: Fields, name: str) -> bool:
    return bytes(fields.get(name, b"null")) == b"true"


def asks_for_usage(fields: Fields) -> bool:
    """True where the client itself wants the usage of a stream."""
    return is_true(_read_stream_options(fields), "include_usage")


class Mask:
    """The alias and our id, put where vLLM wrote a version or the base, and its own id (D8)."""

    def __init__(self, *, alias: str, response_id: str, base: str, hide_usage: bool) -> None:
        self._alias = alias.encode()
        self._model = _encode_raw(alias)
        self._id = _encode_raw(response_id)
        self._base = re.compile(rb"(?<![\w.@-])%b(?![\w@-]|\.\w)" % re.escape(base.encode()))
        self._hide_usage = hide_usage

    def document(self, fields: Fields) -> bytes:
        """Mask a whole answer, or an error: an error's words are searched for names as well."""
        masked = self._encode_masked(fields)
        return self.words(masked) if is_set(fields, "error") else masked

    def chunk(self, fields: Fields) -> bytes | None:
        """Mask one chunk of a stream. None for a final usage that the client did not ask for."""
        if self._hide_usage and "usage" in fields:
            fields = {name: value for name, value in fields.items() if name != "usage"}
            if bytes(fields.get("choices", b"")) == b"[]":
                return None
        return self.document(fields)

    def words(self, text: bytes) -> bytes:
        """Mask text that may name a version, the base or a file of either."""
        return self._base.sub(self._alias, _VERSION.sub(self._alias, text))

    def _encode_masked(self, fields: Fields) -> bytes:
        if "model" in fields:
            fields["model"] = self._model
        if "id" in fields:
            fields["id"] = self._id
        return _ENCODER.encode(fields)


class EventSplitter:
    """Cuts a stream into server-sent events, whatever pieces its bytes come in."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes, *, last: bool) -> list[bytes]:
        """Return the events that are whole now, without blank lines; at the end the rest too."""
        *events, self._rest = _EVENT_END.split(self._rest + data)
        if last and self._rest:
            events.append(self._rest)
            self._rest = b""
        return [event for event in events if event]


def data_of(event: bytes) -> bytes | None:
    """Return an event's data, its lines joined as the standard says; None for a comment."""
    lines = [
        line[5:].removeprefix(b" ") for line in _split_lines(event) if line.startswith(b"data:")
    ]
    return b"\n".join(lines) if lines else None


def with_data(event: bytes, data: bytes) -> bytes:
    """Replace the data of an event and end it for sending; its other lines are kept."""
    others = [line for line in _split_lines(event) if not line.startswith(b"data:")]
    return b"\n".join([*others, b"data: " + data, b"", b""])


def _split_lines(event: bytes) -> list[bytes]:
    return [line for line in _LINE_END.split(event) if line]


def _encode_raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_ENCODER.encode(value))


def _read_stream_options(fields: Fields) -> Fields:
    return decode_fields(bytes(fields.get("stream_options", b"null"))) or {}
