"""What goes to vLLM and what comes back: the alias outside, the version inside. Pure.

Only the top level of a document is decoded; messages and choices pass as the bytes they are.
"""

import re

import msgspec

from adaptd.daemon.wire.routes import VERSION_NAME
from adaptd.daemon.wire.texts import NOT_DECODED

Fields = dict[str, msgspec.Raw]

_DECODER = msgspec.json.Decoder(Fields)
_ENCODER = msgspec.json.Encoder()
_VERSION = re.compile(VERSION_NAME.pattern.strip("^$").encode())
_EVENT_END = re.compile(rb"\r?\n\r?\n")
_LINE_END = re.compile(rb"\r?\n")


def decode_fields(document: bytes) -> Fields | None:
    """The top level of a JSON object, or None where it is not one or nests too deep to read."""
    try:
        return _DECODER.decode(document)
    except NOT_DECODED:
        return None


def request_for(fields: Fields, served: str) -> bytes:
    """The body vLLM gets: the version for `model`, without what is ours, with usage asked for."""
    body = {name: value for name, value in fields.items() if name != "metadata"}
    body["model"] = _raw(served)
    if is_true(fields, "stream"):
        options = _stream_options(fields)
        options["include_usage"] = msgspec.Raw(b"true")
        body["stream_options"] = _raw(options)
    return _ENCODER.encode(body)


def is_set(fields: Fields, name: str) -> bool:
    """True where a field is there and not null."""
    return bytes(fields.get(name, b"null")) != b"null"


def is_true(fields: Fields, name: str) -> bool:
    return bytes(fields.get(name, b"null")) == b"true"


def asks_for_usage(fields: Fields) -> bool:
    """True where the client itself wants the usage of a stream."""
    return is_true(_stream_options(fields), "include_usage")


class Mask:
    """Puts the alias and our id where vLLM wrote a version or the base, and its own id (D8)."""

    def __init__(self, *, alias: str, response_id: str, base: str, hide_usage: bool) -> None:
        self._alias = alias.encode()
        self._model = _raw(alias)
        self._id = _raw(response_id)
        self._base = re.compile(rb"(?<![\w.@-])%b(?![\w@-]|\.\w)" % re.escape(base.encode()))
        self._hide_usage = hide_usage

    def document(self, fields: Fields) -> bytes:
        """A whole answer, or an error: an error's words are searched for names as well."""
        masked = self._encode(fields)
        return self.words(masked) if is_set(fields, "error") else masked

    def chunk(self, fields: Fields) -> bytes | None:
        """One chunk of a stream. None where the client did not ask for it: the usage at its end."""
        if self._hide_usage and "usage" in fields:
            fields = {name: value for name, value in fields.items() if name != "usage"}
            if bytes(fields.get("choices", b"")) == b"[]":
                return None
        return self.document(fields)

    def words(self, text: bytes) -> bytes:
        """Text that may name a version, the base or a file of either."""
        return self._base.sub(self._alias, _VERSION.sub(self._alias, text))

    def _encode(self, fields: Fields) -> bytes:
        if "model" in fields:
            fields["model"] = self._model
        if "id" in fields:
            fields["id"] = self._id
        return _ENCODER.encode(fields)


class EventSplitter:
    """Cuts a stream of server-sent events into events, however its bytes are cut into sends."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes, *, last: bool) -> list[bytes]:
        """The events that are whole now, without blank lines; at the end, what is left too."""
        *events, self._rest = _EVENT_END.split(self._rest + data)
        if last and self._rest:
            events.append(self._rest)
            self._rest = b""
        return [event for event in events if event]


def data_of(event: bytes) -> bytes | None:
    """An event's data, its lines joined as the standard says. None where it has none: a comment."""
    lines = [line[5:].removeprefix(b" ") for line in _lines(event) if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def with_data(event: bytes, data: bytes) -> bytes:
    """The event with other data, ready to be sent; its other lines are kept."""
    others = [line for line in _lines(event) if not line.startswith(b"data:")]
    return b"\n".join([*others, b"data: " + data, b"", b""])


def _lines(event: bytes) -> list[bytes]:
    return [line for line in _LINE_END.split(event) if line]


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_ENCODER.encode(value))


def _stream_options(fields: Fields) -> Fields:
    return decode_fields(bytes(fields.get("stream_options", b"null"))) or {}
