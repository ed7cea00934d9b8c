"""Commands that need no daemon: token, init; and what every command does without one."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adaptd.daemon.cli import app
from adaptd.daemon.demo.broker import free_port
from adaptd.daemon.wire.tokens import TokenBook


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation of its own: settings come from the environment only."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADAPTD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ADAPTD_LISTEN_PORT", str(free_port()))
    return tmp_path / "home"


def run(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.stdout, done.stderr


def test_a_token_is_printed_once_and_only_its_hash_is_kept(home: Path) -> None:
    code, out, err = run("token", "create", "--tenant", "desk", "--scope", "chat")
    assert code == 0
    token = out.strip()
    principal = TokenBook(home / "tokens.json").lookup(token)
    assert principal is not None
    assert (principal.tenant, principal.scopes) == ("desk", frozenset({"chat"}))
    assert token not in (home / "tokens.json").read_text()
    assert principal.id in err
    listed = run("token", "list", "--json")[1]
    assert token not in listed
    assert "sha256" not in listed


def test_a_revoked_token_is_forgotten_and_a_second_time_refused(home: Path) -> None:
    made = json.loads(run("token", "create", "--tenant", "desk", "--json")[1])
    assert run("token", "revoke", made["id"])[0] == 0
    assert TokenBook(home / "tokens.json").lookup(made["token"]) is None
    assert run("token", "revoke", made["id"])[0] == 1


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--tenant", "de:sk"), 1),
        (("--tenant", "desk", "--scope", "everything"), 1),
        (("--tenant", "desk", "--expires", "soon"), 2),
        ((), 2),
    ],
)
def test_a_wrong_token_request_changes_nothing(
    home: Path, words: tuple[str, ...], code: int
) -> None:
    assert run("token", "create", *words)[0] == code
    assert run("token", "list")[1] == ""


def test_an_expiring_token_says_when_it_ends(home: Path) -> None:
    run("token", "create", "--tenant", "desk", "--expires", "90d")
    entry = json.loads(run("token", "list", "--json")[1])[0]
    assert entry["expires_at"] > entry["created_at"]


def test_init_writes_settings_and_a_policy_and_overwrites_nothing(
    home: Path, tmp_path: Path
) -> None:
    code, out, _ = run("init")
    assert code == 0
    assert out.split() == ["adaptd.toml", "policies/support.yaml"]
    mine = tmp_path / "adaptd.toml"
    mine.write_text('home = "elsewhere"\n')
    code, out, err = run("init")
    assert (code, out) == (0, "")
    assert "kept adaptd.toml" in err
    assert mine.read_text() == 'home = "elsewhere"\n'


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("watch", "--once"),
        ("runs", "list"),
        ("rollback", "support", "--reason", "x"),
        ("gateway", "state"),
    ],
)
def test_without_a_daemon_commands_say_so_and_exit_3(home: Path, words: tuple[str, ...]) -> None:
    code, out, err = run(*words)
    assert (code, out) == (3, "")
    assert "adaptd run" in err
    assert len(err.splitlines()) == 1


def test_a_wrong_setting_is_one_line_and_exit_2(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTD_LISTEN_PORT", "many")
    code, _, err = run("status")
    assert code == 2
    assert "listen_port" in err
    assert len(err.splitlines()) == 1
