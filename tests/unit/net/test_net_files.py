"""The files that gateways, server and daemon share are read as before."""

from pathlib import Path

import msgspec
import pytest

from adaptd.daemon.training.adapter_files import check_files
from adaptd.daemon.wire.routes import RouteTable
from adaptd.daemon.wire.signing import load_secret
from adaptd.daemon.wire.tokens import TokenBook, ensure_control_token, list_tokens
from adaptd.serving.gateway.route_book import RouteBook
from adaptd.serving.gateway.settings import load_settings, write_settings
from adaptd.serving.host.server_process import is_alive, read_record
from tests.net.answers import arms
from tests.net.artifacts import as_json, differences, recorded
from tests.net.gateway import gateway_file_of, waiting_lines


@pytest.fixture
def home(installation: Path) -> Path:
    return installation / "home"


def test_the_gateways_settings_are_read_and_written_as_before(home: Path) -> None:
    found = load_settings(gateway_file_of(home))
    write_settings(home / "again.json", found)

    assert differences("files", recorded("files") | {"gateway": found}) == {}
    given = {"ADAPTD_GATEWAY_CONFIG": str(home / "again.json")}
    assert load_settings(given) == found


def test_a_saved_table_assigns_every_unit_as_before(home: Path) -> None:
    book = RouteBook(home / "gateway" / "routes.json")
    book.load()
    known = recorded("store")["rollouts"]

    assert book.table == msgspec.convert(known["table"], RouteTable)
    assert as_json(arms(book.table)) == known["arms"]
    assert not book.lease_held(), "it ended with the process that heard it"
    assert book.apply(book.table) is False
    assert book.lease_held()


def test_every_token_is_of_whom_it_was(home: Path) -> None:
    tokens, book = recorded("files")["tokens"], TokenBook(home / "tokens.json")

    callers = [as_json(book.lookup(known["token"])) for known in tokens]

    assert callers == [known["caller"] for known in tokens]
    assert [caller and caller["tenant"] for caller in callers] == [
        "operator", "shop", "desk", None, None
    ]  # fmt: skip


def test_the_control_token_is_registered_already(home: Path) -> None:
    tokens = home / "tokens.json"
    before = list_tokens(tokens)

    token = ensure_control_token(home / "control.token", tokens)

    assert token == recorded("files")["tokens"][0]["token"]
    assert list_tokens(tokens) == before
    assert len(load_secret(home / "secret.key")) == 32


def test_the_spool_gives_every_line(home: Path) -> None:
    lines = waiting_lines(home / "gateway" / "spool")
    assert [line.decode() for line in lines] == recorded("files")["spool"]


def test_the_record_of_a_server_is_read(home: Path) -> None:
    record = read_record(home / "vllm.json")
    assert record is not None
    assert (record.url, record.dtype) == ("http://127.0.0.1:8000", "float32")
    assert not is_alive(record)


def test_every_version_is_as_the_trainer_sealed_it(home: Path) -> None:
    kept = [row for row in recorded("store")["adapters"] if row["state"] != "erased"]
    versions = {row["name"]: row["content_hash"] for row in kept}
    sealed = {path.name: check_files(path) for path in (home / "adapters").iterdir()}
    assert {name: manifest.content_hash for name, manifest in sealed.items()} == versions
