"""Kafka with SASL_SSL and ACLs: each client of adaptd gets in, or says why it does not."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from kafka.admin import ResourceType

from adaptd.consumers.kafka.service import IngestService
from adaptd.consumers.kafka.topic_admin import Topics
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.ingest.event_reads import EventReads
from adaptd.daemon.store.ingest.halts import HaltStore
from adaptd.daemon.store.ingest.sink import EventStore
from adaptd.daemon.wire.errors import HaltError
from adaptd.daemon.wire.kafka import KafkaSecurity, Mechanism
from adaptd.serving.capture.delivery import EncodedEvent, KafkaDelivery
from tests.support.event_samples import an_interaction, as_bytes
from tests.support.ingest_process import KEY
from tests.support.kafka_settings import ingest_settings
from tests.support.secure_broker import SecureBroker
from tests.support.waiting import until

MECHANISMS: list[Mechanism] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@pytest.fixture(scope="module")
def secure_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    running = SecureBroker(tmp_path_factory.mktemp("secure-kafka"))
    yield running
    running.stop()


class Consuming:
    """An ingest service for a while."""

    def __init__(
        self, home: Path, broker: SecureBroker, security: KafkaSecurity, topics: Topics
    ) -> None:
        self._database = Database.open(home / "store.duckdb")
        self.reads = EventReads(self._database)
        self.service = IngestService(
            ingest_settings(
                broker.bootstrap,
                home,
                security=security,
                group=f"group-{topics.interactions}",
                topics=topics,
                session_timeout_s=6,
            ),
            sink=EventStore(self._database, dedupe_window=timedelta(days=1)),
            halts=HaltStore(self._database),
            key=KEY,
        )

    async def __aenter__(self) -> "Consuming":
        self._task = asyncio.create_task(self.service.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError, HaltError):
            await self._task
        self._database.close()

    async def stored(self, count: int) -> bool:
        assert not self._task.done(), self._task.result()
        return (await self.reads.counts()).interactions == count

    async def problem(self) -> str | None:
        assert not self._task.done(), self._task.result()
        status = await self.service.status()
        return status.problem if status.state == "waiting" else None


def make_topics(broker: SecureBroker, name: str) -> Topics:
    topics = Topics(f"interactions-{name}", f"feedback-{name}")
    for topic in (topics.interactions, topics.feedback):
        broker.create_topic(topic, partitions=1)
    return topics


def allow_reading(broker: SecureBroker, topics: Topics) -> None:
    for topic in (topics.interactions, topics.feedback):
        broker.allow("adaptd", ResourceType.TOPIC, topic, "READ")
    broker.allow("adaptd", ResourceType.GROUP, f"group-{topics.interactions}", "READ")


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_gateway_and_daemon_get_in_with_no_more_rights_than_they_need(
    secure_broker: SecureBroker, tmp_path: Path, mechanism: Mechanism
) -> None:
    topics = await asyncio.to_thread(make_topics, secure_broker, mechanism)
    await asyncio.to_thread(allow_reading, secure_broker, topics)
    await asyncio.to_thread(
        secure_broker.allow, "gateway", ResourceType.TOPIC, topics.interactions, "WRITE"
    )
    delivery = KafkaDelivery(
        secure_broker.bootstrap,
        topics.interactions,
        signing_key=KEY,
        name="g1",
        limit_s=10,
        security=secure_broker.security("gateway", mechanism),
    )
    event = EncodedEvent("u1", as_bytes(an_interaction()))
    assert await asyncio.to_thread(delivery.deliver, [event]) == []
    await asyncio.to_thread(delivery.close)

    security = secure_broker.security("adaptd", mechanism)
    async with Consuming(tmp_path, secure_broker, security, topics) as running:
        await until(lambda: running.stored(1), within_s=30)


async def test_without_its_rights_it_waits_and_goes_on_once_it_has_them(
    secure_broker: SecureBroker, tmp_path: Path
) -> None:
    topics = await asyncio.to_thread(make_topics, secure_broker, "rights")
    event = as_bytes(an_interaction())
    await asyncio.to_thread(secure_broker.send, topics.interactions, [event])
    for topic in (topics.interactions, topics.feedback):
        await asyncio.to_thread(
            secure_broker.allow, "adaptd", ResourceType.TOPIC, topic, "DESCRIBE"
        )

    async with Consuming(
        tmp_path, secure_broker, secure_broker.security("adaptd"), topics
    ) as running:
        assert "Authorization" in str(await until(running.problem, within_s=30))

        await asyncio.to_thread(allow_reading, secure_broker, topics)

        await until(lambda: running.stored(1), within_s=30)


async def test_a_wrong_password_is_waited_out_and_never_shown(
    secure_broker: SecureBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topics = await asyncio.to_thread(make_topics, secure_broker, "password")
    await asyncio.to_thread(allow_reading, secure_broker, topics)
    password = tmp_path / "password"
    password.write_text("wrong-pass")
    security = secure_broker.security("adaptd")
    wrong = KafkaSecurity(
        protocol=security.protocol,
        username=security.username,
        password_path=password,
        ca_path=security.ca_path,
        certificate_path=security.certificate_path,
    )

    async with Consuming(tmp_path, secure_broker, wrong, topics) as running:
        found = str(await until(running.problem, within_s=30))
        assert "uthentication" in found
        assert "wrong-pass" not in found + repr(wrong) + caplog.text

        password.write_text("adaptd-pass")

        await asyncio.to_thread(
            secure_broker.send, topics.interactions, [as_bytes(an_interaction())]
        )
        await until(lambda: running.stored(1), within_s=30)


async def test_a_broker_that_another_authority_signed_is_not_trusted(
    secure_broker: SecureBroker, tmp_path: Path
) -> None:
    security = secure_broker.security("adaptd")
    other = KafkaSecurity(
        protocol="SASL_SSL", username="adaptd", password_path=security.password_path
    )
    async with Consuming(tmp_path, secure_broker, other, Topics()) as running:
        assert "the broker refuses (SSL" in str(await until(running.problem, within_s=30))
