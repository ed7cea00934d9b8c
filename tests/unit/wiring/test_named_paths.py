"""Every place where a path of an operator's may stand, with anything but a plain file there."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from adaptd.daemon.commands.client import find_token
from adaptd.daemon.dataset.render import Renderer
from adaptd.daemon.domain.bases import base_digest, chat_template
from adaptd.daemon.settings import Settings
from adaptd.daemon.store.backups.layout import fact_of, read_manifest
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.training.calibration import own_format, weights_bytes
from adaptd.daemon.wire.errors import AdaptdError
from adaptd.daemon.wire.kafka import KafkaSecurity
from adaptd.daemon.wire.tokens import TokenBook, create_token, ensure_control_token, list_tokens
from adaptd.daemon.wiring.installation import Keys, find_base
from adaptd.serving.gateway.settings import load_settings
from tests.support.odd_files import ODD_FILES, open_descriptors


def read_password(path: Path) -> None:
    security = KafkaSecurity(protocol="SASL_PLAINTEXT", username="ada", password_path=path)
    security.client_options()


def read_certificates(path: Path) -> None:
    KafkaSecurity(protocol="SSL", ca_path=path).client_options()


def find_configured_base(path: Path) -> None:
    folder = path.parent
    find_base(Settings(home=folder, policies_dir=folder / "policies", bases={"tiny": folder}))


# By the name of the file: what reads it, and has to refuse it in words.
PLACES: dict[str, Callable[[Path], object]] = {
    "tokens.json": list_tokens,
    "control.token": lambda path: ensure_control_token(path, path.with_name("tokens.json")),
    "secret.key": lambda path: Keys.ensure(Settings(home=path.parent)),
    "store.duckdb": lambda path: Database.open(path).close(),
    "password": read_password,
    "ca.pem": read_certificates,
    "gateway.json": lambda path: load_settings({"ADAPTD_GATEWAY_CONFIG": str(path)}),
    "manifest.json": lambda path: read_manifest(path.parent),
    "model.safetensors": lambda path: base_digest(path.parent),
    "chat_template.jinja": lambda path: chat_template(path.parent),
    "tokenizer.json": lambda path: Renderer(path.parent),
    "tokenizer_config.json": lambda path: chat_template(path.parent),
    "config.json": find_configured_base,
}
MISSING_IS_FINE = ("tokens.json", "control.token", "store.duckdb")  # they are made, or nobody's


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in PLACES
        for kind in ODD_FILES
        if not (kind == "broken link" and name in MISSING_IS_FINE)
    ],
)
def test_what_is_no_plain_file_is_refused_in_words_and_leaves_nothing_open(
    name: str, kind: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).unlink(missing_ok=True)
    ODD_FILES[kind](tmp_path / name)
    before = open_descriptors()
    for _ in range(3):
        with pytest.raises(AdaptdError) as refused:
            PLACES[name](tmp_path / name)
        assert refused.value.remedy
    assert open_descriptors() == before


@pytest.mark.parametrize("kind", ODD_FILES)
@pytest.mark.parametrize("read", [own_format, weights_bytes])
def test_a_base_without_a_plain_config_is_refused(
    read: Callable[[Path], object], kind: str, tmp_path: Path
) -> None:
    ODD_FILES[kind](tmp_path / "config.json")
    with pytest.raises(OSError, match=r"config\.json"):
        read(tmp_path)


@pytest.mark.parametrize("text", ["[1]", "{", "\xff"])
def test_a_base_with_a_config_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(AdaptdError, match="not a JSON object"):
        own_format(tmp_path)


@pytest.mark.parametrize("kind", ODD_FILES)
def test_an_odd_file_in_a_backup_is_one_that_is_missing(kind: str, tmp_path: Path) -> None:
    ODD_FILES[kind](tmp_path / "file")
    before = open_descriptors()
    assert [fact_of(tmp_path / "file") for _ in range(20)] == [None] * 20
    assert open_descriptors() == before


@pytest.mark.parametrize("kind", ODD_FILES)
def test_a_command_without_a_readable_control_token_goes_on_without(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ADAPTD_TOKEN", raising=False)
    ODD_FILES[kind](tmp_path / "control.token")
    assert find_token(tmp_path / "control.token") is None


@pytest.mark.parametrize("kind", [kind for kind in ODD_FILES if kind != "broken link"])
def test_a_token_file_that_becomes_odd_leaves_the_last_good_one_in_force(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokens.json"
    token, _ = create_token(path, tenant="shop", scopes=("chat",))
    book = TokenBook(path)
    assert book.lookup(token) is not None
    path.unlink()
    ODD_FILES[kind](path)
    assert book.lookup(token) is not None
    assert book.problem is not None


@pytest.mark.parametrize("kind", [kind for kind in ODD_FILES if "folder" not in kind])
def test_tokens_cannot_be_made_in_a_home_that_is_no_folder(kind: str, tmp_path: Path) -> None:
    ODD_FILES[kind](tmp_path / "home")
    with pytest.raises(AdaptdError, match="home"):
        create_token(tmp_path / "home" / "tokens.json", tenant="shop", scopes=("chat",))


# The base of the policies ------------------------------------------------------------------------


def settings_with_bases(folder: Path) -> Settings:
    bases = {}
    for name in ("first", "second"):
        bases[name] = folder / name
        bases[name].mkdir()
        (bases[name] / "config.json").write_text("{}")
    (folder / "policies").mkdir()
    return Settings(home=folder, policies_dir=folder / "policies", bases=bases)


@pytest.mark.parametrize("kind", ODD_FILES)
def test_the_base_is_found_whatever_lies_in_the_policy_folder(kind: str, tmp_path: Path) -> None:
    settings = settings_with_bases(tmp_path)
    folder = settings.policies_dir
    for name in ("a.yaml", "golden", "z.yml"):
        ODD_FILES[kind](folder / name)
    text = "version: 1\nmodel: support\nbase: second\ncurate: {holdout: {golden: golden}}\n"
    (folder / "support.yaml").write_text(text)
    before = open_descriptors()
    assert [find_base(settings).name for _ in range(5)] == ["second"] * 5
    assert open_descriptors() == before


@pytest.mark.parametrize("kind", ODD_FILES)
def test_the_base_is_found_without_a_policy_folder(kind: str, tmp_path: Path) -> None:
    settings = settings_with_bases(tmp_path)
    settings.policies_dir.rmdir()
    ODD_FILES[kind](settings.policies_dir)
    assert find_base(settings).name == "first"


def test_a_base_whose_path_no_file_can_have_is_refused(tmp_path: Path) -> None:
    for name in ("x" * 300, "a\0b", os.fsdecode(b"\xff")):
        settings = Settings(home=tmp_path, bases={"tiny": tmp_path / name})
        with pytest.raises(AdaptdError, match="holds no model"):
            find_base(settings)
