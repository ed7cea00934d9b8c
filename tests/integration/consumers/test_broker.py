from pathlib import Path

import pytest
from kafka import KafkaConsumer

from adaptd.daemon.demo.jars import fetch_jars
from adaptd.daemon.wire.errors import AdaptdError
from tests.support.broker import JARS, Broker


def _read(broker: Broker, topic: str, count: int) -> list[bytes]:
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=broker.bootstrap,
        auto_offset_reset="earliest",
        group_id=None,
        consumer_timeout_ms=20_000,
    )
    try:
        return [record.value for record, _ in zip(consumer, range(count), strict=False)]
    finally:
        consumer.close()


def test_acknowledged_messages_survive_a_kill_of_the_broker(broker: Broker) -> None:
    topic = broker.create_topic("broker-survives-kill", partitions=1)
    bootstrap = broker.bootstrap
    broker.send(topic, [b"one", b"two"])

    broker.kill()
    broker.restart()

    assert broker.bootstrap == bootstrap
    assert _read(broker, topic, 2) == [b"one", b"two"]


def test_jars_that_are_there_are_not_fetched_again(broker: Broker) -> None:
    before = (JARS / ".complete").stat().st_mtime_ns

    assert fetch_jars(JARS).samefile(JARS)
    assert (JARS / ".complete").stat().st_mtime_ns == before
    assert list(JARS.glob("kafka_2.13-*.jar"))


def test_a_pom_that_maven_cannot_use_is_one_clear_error(tmp_path: Path) -> None:
    pom = tmp_path / "pom.xml"
    pom.write_text("<project/>")

    with pytest.raises(AdaptdError, match="kafka: Maven failed"):
        fetch_jars(tmp_path / "jars", pom=pom)
    assert not (tmp_path / "jars").exists()
