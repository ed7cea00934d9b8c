"""`adaptd run` as a process: no broker, no vLLM; what it keeps over a kill, and what it refuses."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adaptd.daemon.commands.errors import MISUSED, REFUSED
from adaptd.daemon.settings import Settings
from tests.support.commands import run_command
from tests.support.daemon_world import (
    POLICY,
    DaemonProcess,
    environment,
    running_daemon,
    settings_for,
    token_for,
)
from tests.support.waiting import LIMIT_S, until_blocking


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path) -> Settings:
    return settings_for(tmp_path, tiny_base)


@pytest.fixture
def daemon(settings: Settings, tmp_path: Path) -> Iterator[DaemonProcess]:
    with running_daemon(settings, tmp_path / "daemon.log") as running:
        yield running


def interactions(first: int, count: int) -> list[dict[str, Any]]:
    return [
        {
            "schema": "adaptd.interaction/1",
            "id": f"i-{number}",
            "time": "2026-11-22T12:00:00Z",
            "model": "support",
        }
        for number in range(first, first + count)
    ]


def send(daemon: DaemonProcess, events: list[dict[str, Any]]) -> list[str]:
    """Send with a token of our own; what became of each."""
    headers = {"Authorization": f"Bearer {token_for(daemon.settings, 'events')}"}
    answer = httpx.post(f"{daemon.url}/v1/events", json=events, headers=headers, timeout=LIMIT_S)
    return [result["result"] for result in answer.raise_for_status().json()["results"]]


def run_to_its_end(settings: Settings, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "adaptd.daemon.cli", "run"],
        env=os.environ | environment(settings, **more),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], *, code: int, words: str) -> None:
    assert done.returncode == code, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert words in done.stderr
    assert done.stdout == ""


def test_accepted_events_survive_sigkill_and_a_repeat_stores_none_twice(
    daemon: DaemonProcess,
) -> None:
    assert set(send(daemon, interactions(0, 500))) == {"stored"}
    assert daemon.end(signal.SIGKILL) == -signal.SIGKILL
    daemon.start()
    daemon.wait_until_answers()
    assert daemon.status()["events"]["interactions"] == 500
    assert set(send(daemon, interactions(400, 200))) == {"duplicate", "stored"}
    assert daemon.status()["events"]["interactions"] == 600


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end_it_ends_cleanly_and_the_store_can_be_opened(
    daemon: DaemonProcess, number: int
) -> None:
    send(daemon, interactions(0, 10))
    assert daemon.end(number) == 0
    assert "Traceback" not in daemon.log.read_text()
    daemon.start()
    daemon.wait_until_answers()
    assert daemon.status()["events"]["interactions"] == 10


def test_the_commands_find_it_by_its_settings(
    daemon: DaemonProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in environment(daemon.settings).items():
        monkeypatch.setenv(name, value)
    until_blocking(lambda: run_command("status", "--json").data["models"], within_s=30)
    send(daemon, interactions(0, 3))
    assert "3 interactions" in run_command("status").err
    assert run_command("runs", "list").code == 0
    assert "rollouts" not in {p["part"] for p in daemon.status()["not_ready"]}
    daemon.end(signal.SIGKILL)
    assert run_command("status").code == 3


def test_a_second_daemon_on_the_same_store_is_refused_in_one_line(daemon: DaemonProcess) -> None:
    done = run_to_its_end(daemon.settings)
    assert_one_line(done, code=REFUSED, words="another process has the store open")
    assert daemon.answers()


def test_a_port_in_use_is_one_line(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.listen_port))
        taken.listen()
        assert_one_line(run_to_its_end(settings), code=MISUSED, words="ADAPTD_LISTEN_PORT")


def test_a_home_that_cannot_be_written_is_one_line(settings: Settings, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    done = run_to_its_end(settings, ADAPTD_HOME=str(blocked / "home"))
    assert_one_line(done, code=MISUSED, words="ADAPTD_HOME")


@pytest.mark.parametrize(
    ("bases", "words"), [("{}", "[bases]"), ('{"tiny": "/nowhere"}', "config.json")]
)
def test_a_missing_base_is_one_line_where_adaptd_starts_vllm(
    settings: Settings, bases: str, words: str
) -> None:
    done = run_to_its_end(settings, ADAPTD_BASES=bases, ADAPTD_UPSTREAM__MANAGE="true")
    assert_one_line(done, code=MISUSED, words=words)


def test_several_api_servers_are_refused_in_one_line_before_anything_runs(
    settings: Settings,
) -> None:
    extra = {"ADAPTD_UPSTREAM__EXTRA_ARGS": '["--api-server-count", "2"]'}
    done = run_to_its_end(settings, ADAPTD_UPSTREAM__MANAGE="true", **extra)
    assert_one_line(done, code=MISUSED, words="upstream.extra_args")


@pytest.mark.parametrize(
    ("name", "value"),
    [("ADAPTD_TICK_S", "-1"), ("ADAPTD_BASES", "not json"), ("ADAPTD_UPSTREAM__DTYPE", "int3")],
)
def test_a_wrong_setting_is_one_line(settings: Settings, name: str, value: str) -> None:
    assert_one_line(run_to_its_end(settings, **{name: value}), code=MISUSED, words="settings")


def test_a_broken_policy_leaves_the_last_good_one_in_force_over_a_restart(
    daemon: DaemonProcess,
) -> None:
    path = daemon.settings.policies_dir / "support.yaml"
    until_blocking(lambda: policy_version(daemon) == 1, within_s=30)
    path.write_text(POLICY.replace("base: tiny", "bass: tiny"))
    until_blocking(lambda: daemon.status()["alerts"], within_s=30)
    assert any(f"{path}:3: bass" in alert["what"] for alert in daemon.status()["alerts"])
    assert policy_version(daemon) == 1
    daemon.end(signal.SIGKILL)
    daemon.start()
    daemon.wait_until_answers()
    until_blocking(lambda: policy_version(daemon) == 1, within_s=30)
    path.write_text(POLICY.replace("60s", "90s"))
    until_blocking(lambda: policy_version(daemon) == 2, within_s=30)
    assert daemon.status()["alerts"] == []


def policy_version(daemon: DaemonProcess) -> int | None:
    models = daemon.status()["models"]
    return models[0]["policy"]["version"] if models and models[0]["policy"] else None


def test_logs_are_one_json_object_a_line_where_asked(settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    with running_daemon(settings, log, ADAPTD_LOG_JSON="true") as daemon:
        send(daemon, [interactions(0, 1)[0] | {"note": "never-log-this"}])
        send(daemon, [{"schema": "never-log-this"}, *interactions(1, 1)])
        daemon.end(signal.SIGTERM)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"daemon_started", "daemon_stopping"} <= {line["event"] for line in lines}
    assert "never-log-this" not in log.read_text()


def test_the_daemon_needs_neither_torch_nor_vllm() -> None:
    check = (
        "import sys, adaptd.daemon.app, adaptd.daemon.cli;"
        "found = {'torch', 'vllm', 'transformers', 'trl', 'peft'} & set(sys.modules);"
        "sys.exit(f'imported: {found}' if found else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", check],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
