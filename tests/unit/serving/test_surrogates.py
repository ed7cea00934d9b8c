"""Half a letter, or bytes that are no UTF-8, from a client, a file or a neighbour of a gateway."""

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from adaptd.daemon.wire.errors import SettingsError
from adaptd.daemon.wire.events import encode_event
from adaptd.daemon.wire.texts import is_encodable
from adaptd.daemon.wire.tokens import Principal, TokenBook
from adaptd.serving.capture.exchange import Exchange, RequestKind
from adaptd.serving.capture.interactions import to_interaction
from adaptd.serving.gateway.allowlist import CHAT_FIELDS
from adaptd.serving.gateway.asgi import Scope
from adaptd.serving.gateway.feedback import read_feedback
from adaptd.serving.gateway.refusals import RefusalError, no_such_route
from adaptd.serving.gateway.request import note_body, note_headers
from adaptd.serving.gateway.settings import CONFIG_VARIABLE, load_settings

NOT_UTF8 = b"\xed\xa0\x80"
ADA = Principal(id="t", tenant="shop", scopes=frozenset({"feedback"}), sources=frozenset({"user"}))


def an_exchange() -> Exchange:
    return Exchange(id="i1", kind=RequestKind.CHAT, tenant="shop", gateway="g1")


@pytest.mark.parametrize("half", [rb"\ud800", rb"\udc00\ud800", NOT_UTF8])
@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "%s"}',
        b'{"%s": 1}',
        b'{"model": "m", "user": "%s"}',
        b'{"model": "m", "metadata": {"a": "%s"}}',
        b'{"model": "m", "metadata": {"%s": "a"}}',
        b'{"model": "m", "stream_options": {"%s": true}}',
        b'"%s"',
    ],
)
def test_a_request_with_half_a_letter_in_a_field_of_ours_is_refused(
    body: bytes, half: bytes
) -> None:
    exchange = an_exchange()
    with pytest.raises(RefusalError) as caught:
        note_body(exchange, body.replace(b"%s", half), allowed=CHAT_FIELDS)
    assert caught.value.status == 400
    assert is_encodable(caught.value.message)
    assert encode_event(to_interaction(exchange))  # the row is kept


def test_a_question_that_is_no_utf_8_costs_its_texts_and_not_its_row() -> None:
    exchange = an_exchange()
    body = b'{"model": "m", "messages": [{"role": "user", "content": "%b"}]}' % NOT_UTF8

    note_body(exchange, body, allowed=CHAT_FIELDS)
    exchange.note_answer(b'{"choices": [{"message": {"content": "%b"}}]}' % NOT_UTF8)
    exchange.usage = b'{"prompt_tokens": 1, "%b": 2}' % NOT_UTF8

    found = to_interaction(exchange)
    assert found.texts == "dropped"
    assert msgspec.json.decode(encode_event(found))["model"] == "m"


@pytest.mark.parametrize("sent", [NOT_UTF8, b"\xff", "ü".encode(), b"a\x80"])
def test_a_header_of_any_bytes_is_text(sent: bytes) -> None:
    exchange = an_exchange()
    scope: Scope = {"headers": [(b"x-request-id", sent), (b"x-adaptd-conversation", sent)]}

    note_headers(exchange, scope)

    assert exchange.conversation is not None
    assert encode_event(to_interaction(exchange))


@pytest.mark.parametrize("half", [rb"\ud800", NOT_UTF8])
@pytest.mark.parametrize("field", ["interaction", "id", "user", "text", "name", "%s"])
def test_feedback_with_half_a_letter_is_refused(field: str, half: bytes) -> None:
    given = {"interaction": "i", "kind": "comment", "text": "x"} | {field: "%s"}
    body = json.dumps(given).encode().replace(b"%s", half)

    with pytest.raises(RefusalError) as caught:
        read_feedback(body, ADA, ids_key=b"k" * 32, now=datetime(2026, 1, 1, tzinfo=UTC))

    assert caught.value.status in (400, 404)
    assert is_encodable(caught.value.message)


def test_an_address_with_half_a_letter_is_answered() -> None:
    body = no_such_route("GET", "/\ud800").body
    assert "/" in body["error"]["message"]


@pytest.mark.parametrize("half", [rb"\ud800", NOT_UTF8])
def test_a_settings_file_with_half_a_letter_is_refused(half: bytes, tmp_path: Path) -> None:
    path = tmp_path / "gateway.json"
    path.write_bytes(b'{"gateway": "%b"}' % half)
    with pytest.raises(SettingsError, match="cannot be used"):
        load_settings({CONFIG_VARIABLE: str(path)})


@pytest.mark.parametrize("half", [rb"\ud800", NOT_UTF8])
def test_a_token_file_with_half_a_letter_is_a_problem_and_knows_nobody(
    half: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "tokens.json"
    path.write_bytes(b'{"tokens": [{"id": "%b"}]}' % half)
    book = TokenBook(path)

    assert book.lookup("adt_x") is None
    assert book.problem is not None
    assert is_encodable(str(book.problem))
