"""`adaptd run` with a broker of its own: events over SIGKILL, and a halt that a person lifts."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from kafka.admin import KafkaAdminClient

from adaptd.daemon.commands.errors import HALTED
from adaptd.daemon.wire.events import FEEDBACK_TOPIC, INTERACTIONS_TOPIC
from tests.support.broker import Broker
from tests.support.commands import run_command
from tests.support.daemon_world import DaemonProcess, environment, running_daemon, settings_for
from tests.support.waiting import until_blocking


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of its own: the daemon's topics have fixed names, and this test deletes one."""
    running = Broker(tmp_path_factory.mktemp("kafka"))
    yield running
    running.stop()


@pytest.fixture
def daemon(
    own_broker: Broker, tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DaemonProcess]:
    """A daemon on the broker; commands find it by its settings."""
    kafka = {
        "ADAPTD_KAFKA_BOOTSTRAP": own_broker.bootstrap,
        "ADAPTD_KAFKA_CREATE_TOPICS": "true",
        "ADAPTD_KAFKA_GROUP": tmp_path.name,
    }
    settings = settings_for(tmp_path, tiny_base)
    monkeypatch.chdir(tmp_path)
    for name, value in environment(settings, **kafka).items():
        monkeypatch.setenv(name, value)
    with running_daemon(settings, tmp_path / "daemon.log", **kafka) as running:
        until_blocking(lambda: ingest_state(running) == "running", within_s=60)
        yield running


def ingest_state(daemon: DaemonProcess) -> str:
    return daemon.status()["ingest"]["state"]


def interactions(first: int, count: int) -> list[bytes]:
    return [
        json.dumps(
            {
                "schema": "adaptd.interaction/1",
                "id": f"i-{number}",
                "time": "2026-11-22T12:00:00Z",
                "model": "support",
            }
        ).encode()
        for number in range(first, first + count)
    ]


def stored(daemon: DaemonProcess) -> int:
    return daemon.status()["events"]["interactions"]


def committed(broker: Broker) -> int:
    """The group's offset, as Kafka's own lag tools see it."""
    group = os.environ["ADAPTD_KAFKA_GROUP"]
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    try:
        told = admin.list_group_offsets(group)[group]
    finally:
        admin.close()
    return sum(at.offset for place, at in told.items() if place.topic == INTERACTIONS_TOPIC)


def make_topic_anew(broker: Broker, name: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    try:
        admin.delete_topics([name])
        until_blocking(lambda: name not in admin.list_topics(), within_s=20)
    finally:
        admin.close()
    broker.create_topic(name)


def test_events_sent_while_it_is_dead_are_stored_once_it_lives(
    own_broker: Broker, daemon: DaemonProcess
) -> None:
    own_broker.send(INTERACTIONS_TOPIC, interactions(0, 300))
    until_blocking(lambda: stored(daemon) > 0, within_s=30)
    daemon.end(signal.SIGKILL)
    own_broker.send(INTERACTIONS_TOPIC, interactions(300, 300))
    daemon.start()
    daemon.wait_until_answers()
    # Static membership: without it the dead member's session, 10 s, would have to end first.
    until_blocking(lambda: stored(daemon) > 300, within_s=8)
    until_blocking(lambda: stored(daemon) == 600, within_s=60)
    until_blocking(lambda: committed(own_broker) >= 600, within_s=10)


@pytest.mark.timeout(300)
def test_a_topic_made_anew_halts_it_until_an_operator_accepts_the_gap(
    own_broker: Broker, daemon: DaemonProcess
) -> None:
    own_broker.send(INTERACTIONS_TOPIC, interactions(1000, 50))
    until_blocking(lambda: stored(daemon) >= 50, within_s=30)
    before = stored(daemon)
    daemon.end(signal.SIGTERM)
    make_topic_anew(own_broker, INTERACTIONS_TOPIC)
    own_broker.send(INTERACTIONS_TOPIC, interactions(2000, 10))

    daemon.start()
    assert daemon.process is not None
    assert daemon.process.wait(90) == HALTED
    assert "Traceback" not in daemon.log.read_text()

    daemon.start()
    daemon.wait_until_answers()
    ready = until_blocking(lambda: halted(daemon), within_s=30)
    assert ready["ready"] is False
    assert "ingest" in ready["not_ready"]
    assert "halted" in run_command("status").err
    assert stored(daemon) == before, "all but the consumer runs"
    assert FEEDBACK_TOPIC in run_command("ingest", "status").out

    assert run_command("ingest", "resync", "--reason", "the topic was recreated").code == 0
    until_blocking(lambda: stored(daemon) == before + 10, within_s=60)
    assert halted(daemon) is None
    assert run_command("ingest", "resume", "--reason", "again").code == 1


def halted(daemon: DaemonProcess) -> dict[str, object] | None:
    """The answer of /readyz while it says halted."""
    ready = httpx.get(f"{daemon.url}/readyz").json()
    return ready if ready["halted"] else None
