from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adaptd.daemon.wire.errors import RefusedError
from adaptd.daemon.wire.tokens import (
    TokenBook,
    create_token,
    ensure_control_token,
    list_tokens,
    revoke_token,
)


def test_a_token_names_its_holder_and_rights(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    token, entry = create_token(
        path, tenant="shop", scopes=("chat", "feedback"), sources=("agent",), models=("support",)
    )

    principal = TokenBook(path).lookup(token)

    assert principal is not None
    assert (principal.id, principal.tenant) == (entry.id, "shop")
    assert principal.may("chat")
    assert not principal.may("control")
    assert principal.sources == {"agent"}
    assert principal.sees("support")
    assert not principal.sees("sales")


def test_the_file_holds_no_token_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    token, _ = create_token(path, tenant="shop", scopes=("chat",))
    control = ensure_control_token(tmp_path / "control.token", path)

    assert token not in path.read_text()
    assert control not in path.read_text()
    for file in (path, tmp_path / "control.token"):
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("bearer", ["", "adt_", "nobody", "é"])
def test_an_unknown_token_is_nobody(tmp_path: Path, bearer: str) -> None:
    path = tmp_path / "tokens.json"
    create_token(path, tenant="shop", scopes=("chat",))

    assert TokenBook(path).lookup(bearer) is None


def test_a_missing_file_knows_nobody(tmp_path: Path) -> None:
    assert TokenBook(tmp_path / "tokens.json").lookup("adt_x") is None


def test_an_open_book_sees_new_and_revoked_tokens_at_once(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    book = TokenBook(path)
    token, entry = create_token(path, tenant="shop", scopes=("chat",))
    assert book.lookup(token) is not None

    assert revoke_token(path, entry.id)

    assert book.lookup(token) is None
    assert not revoke_token(path, entry.id)


def test_an_expired_token_is_nobody(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    past = datetime.now(UTC) - timedelta(seconds=1)
    token, _ = create_token(path, tenant="shop", scopes=("chat",), expires_at=past)

    assert TokenBook(path).lookup(token) is None


def test_a_broken_file_leaves_the_last_good_one_in_force(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    token, _ = create_token(path, tenant="shop", scopes=("chat",))
    book = TokenBook(path)
    assert book.lookup(token) is not None

    path.write_text('{"tokens": [{"id": 7}]}')

    assert book.lookup(token) is not None
    assert book.problem is not None
    assert str(path) in str(book.problem)


def test_the_control_token_is_made_once_and_registered(tmp_path: Path) -> None:
    control, tokens = tmp_path / "control.token", tmp_path / "tokens.json"

    first = ensure_control_token(control, tokens)

    assert ensure_control_token(control, tokens) == first == control.read_text().strip()
    assert len(list_tokens(tokens)) == 1
    principal = TokenBook(tokens).lookup(first)
    assert principal is not None
    assert principal.may("control")


def test_a_control_token_missing_from_the_token_file_is_registered_again(tmp_path: Path) -> None:
    control, tokens = tmp_path / "control.token", tmp_path / "tokens.json"
    first = ensure_control_token(control, tokens)
    tokens.unlink()

    assert ensure_control_token(control, tokens) == first
    assert TokenBook(tokens).lookup(first) is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"tenant": "a:b", "scopes": ("chat",)},
        {"tenant": "", "scopes": ("chat",)},
        {"tenant": "shop\n", "scopes": ("chat",)},
        {"tenant": "shop", "scopes": ("admin",)},
        {"tenant": "shop", "scopes": ("chat",), "sources": ("robot",)},
    ],
)
def test_a_wrong_tenant_scope_or_source_is_refused(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(RefusedError, match="token: "):
        create_token(tmp_path / "tokens.json", **wrong)
    assert list_tokens(tmp_path / "tokens.json") == ()
