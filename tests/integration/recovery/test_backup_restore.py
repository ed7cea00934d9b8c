"""`adaptd backup`, `restore` and `store` on a daemon that runs: with a broker, and encrypted."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from adaptd.daemon.settings import Settings
from adaptd.daemon.wire.events import INTERACTIONS_TOPIC
from tests.support.broker import Broker
from tests.support.commands import run_command
from tests.support.daemon_world import (
    DaemonProcess,
    environment,
    running_daemon,
    settings_for,
    token_for,
)
from tests.support.waiting import LIMIT_S, until_blocking

MARKER = "planted-marker"


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """Not the shared one: the daemon's topics have fixed names."""
    running = Broker(tmp_path / "kafka")
    yield running
    running.stop()


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of an installation that the commands find too."""
    made = settings_for(tmp_path, tiny_base)
    monkeypatch.chdir(tmp_path)
    for name, value in environment(made).items():
        monkeypatch.setenv(name, value)
    return made


def interactions(first: int, count: int) -> list[bytes]:
    return [
        json.dumps(
            {
                "schema": "adaptd.interaction/1",
                "id": f"i-{number}",
                "time": "2026-11-22T12:00:00Z",
                "model": "support",
                "user": MARKER,
            }
        ).encode()
        for number in range(first, first + count)
    ]


def stored(daemon: DaemonProcess) -> int:
    return daemon.status()["events"]["interactions"]


def not_ready(daemon: DaemonProcess) -> list[str]:
    return httpx.get(f"{daemon.url}/readyz").json()["not_ready"]


@pytest.mark.timeout(240)
def test_an_older_copy_comes_back_reads_on_and_moves_nothing_until_it_is_let(
    own_broker: Broker, settings: Settings, tmp_path: Path
) -> None:
    kafka = {
        "ADAPTD_KAFKA_BOOTSTRAP": own_broker.bootstrap,
        "ADAPTD_KAFKA_CREATE_TOPICS": "true",
    }
    with running_daemon(settings, tmp_path / "daemon.log", **kafka) as daemon:
        until_blocking(lambda: daemon.status()["ingest"]["state"] == "running", within_s=60)
        own_broker.send(INTERACTIONS_TOPIC, interactions(0, 300))
        until_blocking(lambda: stored(daemon) == 300, within_s=30)
        own_broker.send(INTERACTIONS_TOPIC, interactions(300, 300))
        made = run_command("backup", "monday", "--json").data
        assert 300 <= made["rows"]["interactions"] <= 600
        assert sum(at["next_offset"] for at in made["offsets"]) == made["rows"]["interactions"]
        assert run_command("backup", "monday", "--verify").code == 0
        assert run_command("backup", "monday").code == 1, "it is there already"
        until_blocking(lambda: stored(daemon) == 600, within_s=30)
        assert run_command("restore", "monday", "--replace").code == 1, "the daemon runs"
        daemon.end(signal.SIGKILL)

        refused = run_command("restore", "monday")
        assert (refused.code, len(refused.err.splitlines())) == (1, 1)
        assert run_command("restore", "monday", "--replace").code == 0
        daemon.start()
        daemon.wait_until_answers()
        until_blocking(lambda: stored(daemon) == 600, within_s=60)
        assert "restored" in not_ready(daemon)
        until_blocking(lambda: daemon.status()["restore"]["caught_up_at"], within_s=30)
        assert "nothing moves" in run_command("status").err
        back = run_command("rollback", "support", "--reason", "x")
        assert back.code == 1
        assert "adaptd store release" in back.err

        assert run_command("store", "release", "--reason", "no gateway is left").code == 0
        assert "restored" not in not_ready(daemon)
        assert run_command("store", "release", "--reason", "again").code == 1
        own_broker.send(INTERACTIONS_TOPIC, interactions(500, 200))
        until_blocking(lambda: stored(daemon) == 700, within_s=30)


def found_in(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.name for path in files if MARKER.encode() in path.read_bytes())


def test_an_encrypted_daemon_leaves_no_plaintext_and_no_key_in_any_file(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "Kd93hs.ra0" * 4
    key = tmp_path / "store.key"
    key.write_text(secret)
    key.chmod(0o600)
    monkeypatch.setenv("ADAPTD_STORE_KEY_PATH", str(key))
    log = tmp_path / "daemon.log"
    with running_daemon(settings, log) as daemon:
        headers = {"Authorization": f"Bearer {token_for(settings, 'events')}"}
        body = b"\n".join(interactions(0, 500))
        kind = {"Content-Type": "application/x-ndjson"}
        url = f"{daemon.url}/v1/events"
        httpx.post(url, content=body, headers=headers | kind).raise_for_status()
        assert run_command("backup", "monday", "--without-secrets").code == 0
        assert found_in(settings.home) == found_in(tmp_path / "monday") == []
        assert secret not in json.dumps(daemon.status())
        daemon.end(signal.SIGKILL)
        assert found_in(settings.home) == []
        daemon.start()
        daemon.wait_until_answers()
        assert stored(daemon) == 500
        daemon.end(signal.SIGTERM)
    assert secret not in log.read_text()

    monkeypatch.delenv("ADAPTD_STORE_KEY_PATH")
    ended = subprocess.run(
        [sys.executable, "-m", "adaptd.daemon.cli", "run"],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (ended.returncode, "no key is set" in ended.stderr) == (2, True)
    assert run_command("backup", "tuesday").code == 2
    assert run_command("store", "rekey", "--old-key-path", str(key)).code == 0
    assert found_in(settings.home) == ["store.duckdb"]
    assert run_command("backup", "tuesday").code == 0, "without a daemon too"
    assert run_command("backup", "tuesday", "--verify").code == 0
