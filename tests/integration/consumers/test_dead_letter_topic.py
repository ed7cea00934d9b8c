"""Dead letters reach Kafka's topic, also over an outage of the broker and a restart."""

import asyncio
import gc
import itertools
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from adaptd.consumers.rereading.dead_letter_topic import DeadLetterOutbox
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.ingest.dead_letters import DeadLetterStore
from tests.support.broker import Broker
from tests.support.ingesting import Ingesting
from tests.support.kafka_settings import outbox_settings
from tests.support.waiting import until

_number = itertools.count(1)


class World:
    def __init__(self, database: Database, broker: Broker, topic: str, *, create: bool) -> None:
        self.ingesting = Ingesting(database)
        self.letters = DeadLetterStore(database, clock=self.ingesting.clock)
        settings = outbox_settings(broker.bootstrap, topic, create_topic=create)
        self.outbox = DeadLetterOutbox(settings, self.letters)
        self.running = asyncio.create_task(self.outbox.run())

    async def stop(self) -> None:
        self.running.cancel()
        with suppress(asyncio.CancelledError):
            await self.running

    async def all_published(self) -> bool:
        return not await self.letters.unpublished(limit=1, max_bytes=1)


@pytest.fixture
def topic() -> str:
    return f"dead-letters-{next(_number)}-{uuid.uuid4().hex[:6]}"


@asynccontextmanager
async def publishing(
    broker: Broker, topic: str, home: Path, *, create: bool = True
) -> AsyncIterator[World]:
    """The outbox over a file store in `home`, which a later call opens again."""
    database = Database.open(home / "store.duckdb")
    made = World(database, broker, topic, create=create)
    try:
        yield made
    finally:
        await made.stop()
        database.close()
        gc.collect()  # what a client left open is this test's error


def published(broker: Broker, topic: str) -> list[tuple[str, bytes, dict[str, str]]]:
    """Everything in the topic: key, value and headers. In order where it has one partition."""
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest")
    try:
        places = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic) or ()]
        ends = consumer.end_offsets(places)
        consumer.assign(places)
        consumer.seek_to_beginning()
        found = []
        while any(consumer.position(place) < end for place, end in ends.items()):
            for records in consumer.poll(timeout_ms=500).values():
                for record in records:
                    headers = {name: value.decode() for name, value in record.headers}
                    found.append((record.key.decode(), record.value, headers))
        return found
    finally:
        consumer.close()


def keys(*positions: int) -> list[str]:
    return [f"kafka/events/0/{position}/0" for position in positions]


async def test_letters_are_published_with_where_they_came_from_and_why(
    broker: Broker, topic: str, tmp_path: Path
) -> None:
    async with publishing(broker, topic, tmp_path) as here:
        await here.ingesting.add(b"broken", b"\xff", b"x" * 2_000_000)
        await until(here.all_published, within_s=30)

    found = await asyncio.to_thread(published, broker, topic)

    by_key = {key: (value, headers) for key, value, headers in found}
    assert sorted(key for key, _, _ in found) == keys(0, 1, 2)
    value, headers = by_key["kafka/events/0/1/0"]
    assert value == b"\xff"
    told = ("reason", "source", "topic", "partition", "position", "index")
    assert [headers[f"adaptd-{name}"] for name in told] == [
        "not_utf8",
        "kafka",
        "events",
        "0",
        "1",
        "0",
    ]
    cut, headers = by_key["kafka/events/0/2/0"]
    assert (len(cut), headers["adaptd-size"]) == (900_000, "2000000")


async def test_a_missing_topic_is_waited_for_and_never_created_unasked(
    broker: Broker, topic: str, tmp_path: Path
) -> None:
    async with publishing(broker, topic, tmp_path, create=False) as here:
        await here.ingesting.add(b"broken")
        await until(lambda: here.outbox.problem, within_s=20)

        assert "there is no topic" in str(here.outbox.problem)
        assert not await here.all_published()


async def test_letters_wait_for_a_broker_that_is_away_and_keep_their_order(
    broker: Broker, topic: str, tmp_path: Path
) -> None:
    await asyncio.to_thread(broker.create_topic, topic, partitions=1)
    async with publishing(broker, topic, tmp_path) as here:
        await here.ingesting.add(b"{0")
        await until(here.all_published, within_s=30)
        await asyncio.to_thread(broker.kill)
        try:
            await here.ingesting.add(*(b"{%d" % number for number in range(1, 13)))
            await until(lambda: here.outbox.problem, within_s=45)
            assert len(await here.letters.list()) == 13, "the store does not wait for the broker"
        finally:
            broker.restart()
        await until(here.all_published, within_s=60)
        assert all(letter.published_at for letter in await here.letters.list())

    found = await asyncio.to_thread(published, broker, topic)

    assert list(dict.fromkeys(key for key, _, _ in found)) == keys(*range(13))


async def test_after_a_restart_only_what_is_new_is_published(
    broker: Broker, topic: str, tmp_path: Path
) -> None:
    await asyncio.to_thread(broker.create_topic, topic, partitions=1)
    async with publishing(broker, topic, tmp_path) as here:
        await here.ingesting.add(b"{0", b"{1")
        await until(here.all_published, within_s=30)

    async with publishing(broker, topic, tmp_path) as here:
        here.ingesting.next = 2
        await here.ingesting.add(b"{2")
        await until(here.all_published, within_s=30)

    found = await asyncio.to_thread(published, broker, topic)

    assert [key for key, _, _ in found] == keys(0, 1, 2)


async def test_an_outbox_that_has_stopped_leaves_no_connection(
    broker: Broker, topic: str, tmp_path: Path
) -> None:
    async with publishing(broker, topic, tmp_path) as here:
        await here.ingesting.add(b"broken")
        await until(here.all_published, within_s=30)
        assert client_threads()

        await here.stop()

        assert not client_threads()


def client_threads() -> list[str]:
    """The threads of the outbox's client: each holds connections."""
    return [thread.name for thread in threading.enumerate() if "adaptd-dead" in thread.name]
