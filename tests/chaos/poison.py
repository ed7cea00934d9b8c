"""What nobody should send, with the reason that its dead letter must give."""

import json

_MB = 10**6


def _event(**fields: object) -> bytes:
    sound = {
        "schema": "adaptd.interaction/1",
        "id": "p",
        "time": "2026-11-22T12:00:00Z",
        "model": "support",
    }
    return json.dumps(sound | fields).encode()


def _nested(levels: int) -> bytes:
    return _event(request={"messages": []}).replace(b"[]", b"[" * levels + b"]" * levels)


SMALL: list[tuple[bytes, str]] = [
    (b"\xff\xfe\x00broken", "not_utf8"),
    (b'{"schema": "adaptd.interaction/1", "id": "\xc3\x28"}', "not_utf8"),
    (b'{"id": "cut', "not_json"),
    (_event()[:-9], "not_json"),
    (b"", "not_json"),
    (b"[" * 5_000, "too_deep"),
    (_nested(200), "too_deep"),
    (b"[]", "not_an_object"),
    (b"null", "not_an_object"),
    (_event(id=5), "invalid"),
    (_event(time="yesterday"), "invalid"),
    (_event(request=["not an object"]), "invalid"),
    (_event(usage={"prompt_tokens": -1}), "invalid"),
    (_event(id="x" * 200), "invalid"),
    (_event(time="1969-01-01T00:00:00Z"), "time_out_of_range"),
    (_event(time="2999-01-01T00:00:00Z"), "time_out_of_range"),
    (_event(schema="adaptd.interaction/9"), "unknown_version"),
    (_event(schema="somebody.else/1"), "unknown_schema"),
    (b'{"batch": []}', "empty_batch"),
    (b'{"batch": {"id": 1}}', "invalid"),
]
NO_VALUE = (None, "no_value")
# Above what is kept as an event, as one record and as a batch of too many parts.
LARGE: list[tuple[bytes, str]] = [
    (_event(request={"messages": [{"role": "user", "content": "x" * (5 * _MB)}]}), "too_large"),
    (b'{"batch": [' + b"1," * 20_000 + b"1]}", "batch_too_long"),
    (b"[" * 4 * _MB, "too_deep"),
]
# Some kilobytes of gzip that unpack to this. The broker takes it: its limit is for packed bytes.
# It is refused as it came, packed.
BOMB = (b" " * 64 * _MB, "unpacks_too_large")
