"""Half a letter (a lone surrogate) at any door: refused there, and what is asked next answers."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from adaptd.daemon.settings import load_settings
from adaptd.daemon.wire.errors import SettingsError
from tests.support.commands import RunCommand
from tests.support.daemon_world import ServedParts

HALF = r"\ud800"
POLICIES = [
    f'alpha: "{HALF}"',
    f'"{HALF}": 1',
    f'base: "{HALF}"',
    f'select: {{where: "{HALF}"}}',
    f'gate: {{alpha: "{HALF}"}}',
]


@pytest.fixture
def broken(served: ServedParts) -> Iterator[Path]:
    """A policy file that tests break; the good one beside it stays."""
    path = served.settings.policies_dir / "broken.yaml"
    yield path
    for file in served.settings.policies_dir.glob("*.y*ml"):
        if file.name != "support.yaml":
            file.unlink()
    served.run(served.parts.policies.refresh())


def ask(served: ServedParts, method: str, path: str, **parts: Any) -> httpx.Response:
    token = {"Authorization": f"Bearer {served.control_token}"}
    return httpx.request(method, f"{served.url}{path}", headers=token, trust_env=False, **parts)


def assert_all_answers(served: ServedParts, run: RunCommand) -> None:
    for path in ("/v1/status", "/v1/policies", "/metrics", "/readyz"):
        assert ask(served, "GET", path).status_code in (200, 503)
    assert run("status").code == 0
    assert run("watch", "--once").code == 0


@pytest.mark.parametrize("line", POLICIES)
def test_a_policy_with_half_a_letter_is_told_and_everything_answers(
    served: ServedParts, run: RunCommand, broken: Path, line: str
) -> None:
    broken.write_text(f"version: 1\nmodel: broken\n{line}\n")
    served.run(served.parts.policies.refresh())

    assert_all_answers(served, run)
    assert f"{broken}:3" in run("status").err
    assert "half a letter" in run("status").err
    assert "half a letter" in str(run("doctor", "--json").data)
    checked = run("policy", "check", str(broken))
    assert checked.code == 1
    assert f"{broken}:3" in checked.err


def test_a_policy_file_whose_name_is_no_utf_8_is_told_and_everything_answers(
    served: ServedParts, run: RunCommand, broken: Path
) -> None:
    odd = broken.with_name(os.fsdecode(b"odd\xff.yaml"))
    odd.write_text("version: 1\nmodel: odd\nbase: tiny\n")
    served.run(served.parts.policies.refresh())

    assert_all_answers(served, run)
    assert "not UTF-8" in run("status").err
    assert "not UTF-8" in str(run("doctor", "--json").data)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/ingest/replays", {"topics": [HALF], "reason": "x", "from_offset": 0}),
        ("/v1/ingest/replays", {"topics": ["t"], "reason": HALF}),
        ("/v1/ingest/replays/r1/cancel", {"reason": HALF}),
        ("/v1/ingest/resume", {"reason": HALF}),
        ("/v1/deadletters/redrive", {"ids": [HALF]}),
        ("/v1/deadletters/redrive", {"reason": HALF}),
        ("/v1/deadletters/redrive", {"after": {"id": HALF}}),
        ("/v1/runs/r1/cancel", {"reason": HALF}),
        ("/v1/rollouts", {"adapter": HALF}),
        ("/v1/rollouts", {"adapter": "a", "override_reason": HALF}),
        ("/v1/rollouts/r1/pause", {"reason": HALF}),
        ("/v1/rollback", {"model": HALF, "reason": "x"}),
        ("/v1/erasures", {"user": HALF, "reason": "x"}),
        ("/v1/erasures/lift", {"user": "u", "tenant": HALF, "reason": "x"}),
        ("/v1/backup", {"destination": f"/tmp/{HALF}"}),
        ("/v1/store/release", {"reason": HALF}),
        ("/v1/store/release", {"reason": "x", HALF: "a key"}),
        ("/v1/store/release", HALF),
        ("/v1/store/release", [HALF]),
    ],
)
def test_a_body_with_half_a_letter_is_refused(served: ServedParts, path: str, body: Any) -> None:
    content = msgspec.json.encode(body).replace(rb"\\ud800", rb"\ud800")
    assert rb"\ud800" in content
    headers = {"content-type": "application/json"}

    answer = httpx.post(
        f"{served.url}{path}",
        content=content,
        headers=headers | {"Authorization": f"Bearer {served.control_token}"},
        trust_env=False,
    )

    assert answer.status_code == 422
    assert answer.json()["error"]["problem"]


@pytest.mark.parametrize(
    "event",
    [
        '{"schema": "adaptd.feedback/1", "id": "%s"}',
        '{"schema": "%s"}',
        '{"schema": "adaptd.interaction/1", "request": {"messages": ["%s"]}}',
        '{"%s": 1}',
        '"%s"',
    ],
)
def test_an_event_with_half_a_letter_is_a_dead_letter(
    served: ServedParts, run: RunCommand, event: str
) -> None:
    answer = ask(served, "POST", "/v1/events", content=(event % HALF).encode())

    assert [each["result"] for each in answer.json()["results"]] == ["dead_letter"]
    assert_all_answers(served, run)
    assert ask(served, "GET", "/v1/deadletters").status_code == 200
    assert run("deadletters", "list").code == 0


@pytest.mark.parametrize("path", ["/v1/runs/%ED%A0%80", "/v1/traffic?model=%ED%A0%80", "/%FF"])
def test_an_address_that_is_no_utf_8_is_answered(served: ServedParts, path: str) -> None:
    assert ask(served, "GET", path).json() is not None


@pytest.mark.parametrize(
    "words",
    [
        ("token", "create", "--tenant", "\udcff"),
        ("token", "create", "--tenant", "desk", "--model", "\udcff"),
        ("runs", "cancel", "r1", "--reason", "\udcff"),
        ("erase", "--user", "\udcff"),
        ("import", "--format", "adaptd", "\udcff.jsonl"),
        ("policy", "check", "\udcff.yaml"),
        ("\udcff",),
    ],
)
def test_a_word_of_the_command_line_that_is_no_utf_8_is_misuse(
    run: RunCommand, words: tuple[str, ...]
) -> None:
    done = run(*words)
    assert done.code == 2
    assert "is not UTF-8" in done.err


@pytest.mark.parametrize(
    "name", ["ADAPTD_HOME", "ADAPTD_KAFKA_DEAD_LETTERS_TOPIC", "ADAPTD_POLICIES_DIR"]
)
def test_a_setting_that_is_no_utf_8_stops_the_process(
    name: str, run: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, os.fsdecode(b"a\xff"))
    with pytest.raises(SettingsError, match="is not UTF-8"):
        load_settings()
    assert run("status").code == 2
