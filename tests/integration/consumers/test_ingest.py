"""Kafka → Faust → store, against a real broker: no event lost, none twice, nothing stops it."""

import asyncio
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from kafka.admin import KafkaAdminClient

from adaptd.consumers.kafka.topic_admin import Topics
from adaptd.daemon.demo.broker import free_port
from adaptd.daemon.wire.events import SIGNATURE_HEADER
from adaptd.daemon.wire.signing import sign
from tests.support.broker import Broker
from tests.support.event_samples import a_correction, a_rating, an_interaction, as_bytes
from tests.support.ingest_process import KEY
from tests.support.ingest_world import caught_up, consuming, names, problem, send, send_bomb
from tests.support.waiting import until


@pytest.fixture
def topics(broker: Broker) -> Topics:
    made = names()
    broker.create_topic(made.interactions)
    broker.create_topic(made.feedback, partitions=1)
    return made


async def test_events_are_stored_and_poison_does_not_stop_the_stream(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    event = as_bytes(an_interaction(id="gateway", arm="canary"))
    signature = {SIGNATURE_HEADER.replace("-", "_"): sign(KEY, event).encode()}
    poison = [b"\xff\xfe", b'{"id": "cut', as_bytes(an_interaction(id=5)), b"[" * 5000]
    await asyncio.to_thread(broker.send, topics.interactions, [event], **signature)
    await send(broker, topics.interactions, *poison, an_interaction(id="after"))
    batch = {"batch": [a_rating("gateway"), {"id": 1}, a_correction("after")]}
    await send(broker, topics.feedback, batch, a_correction("after", source="reviewer"))

    async with consuming(broker, topics, tmp_path) as running:
        await until(lambda: caught_up(running, 2), within_s=20)

        counts = await running.reads.counts()
        assert (counts.interactions, counts.feedback, counts.dead_letters) == (2, 2, 6)
        letters = {letter.reason: letter for letter in await running.letters.list()}
        reasons = {"not_utf8", "not_json", "invalid", "too_deep", "source_not_permitted"}
        assert set(letters) == reasons
        shown = await running.letters.show(letters["not_utf8"].id)
        assert shown is not None
        assert (shown.bytes, shown.topic) == (b"\xff\xfe", topics.interactions)
        assert await running.ask("SELECT id, trusted FROM interactions ORDER BY id") == [
            {"id": "after", "trusted": False},
            {"id": "gateway", "trusted": True},
        ]


async def test_reading_goes_on_where_the_store_ends_and_not_where_kafka_thinks(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    """A store put back to an older state gets a chunk again, and stores it once."""
    await send(broker, topics.interactions, *(an_interaction() for _ in range(30)))
    async with consuming(broker, topics, tmp_path) as running:
        await until(lambda: caught_up(running, 30), within_s=20)
        await until(lambda: told_group(broker, topics) == 30, within_s=10)
        rewind = "UPDATE offsets SET next_offset = greatest(0, next_offset - 5)"
        await running.database.write(lambda cursor: cursor.execute(rewind))

    await send(broker, topics.interactions, *(an_interaction() for _ in range(10)))
    async with consuming(broker, topics, tmp_path) as running:
        await until(lambda: caught_up(running, 40), within_s=20)

        counts = await running.reads.counts()
        assert counts.interactions == 40
        assert counts.duplicates > 0


def told_group(broker: Broker, topics: Topics) -> int:
    """The group's offset, as Kafka's lag tools see it."""
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    told = admin.list_group_offsets(topics.interactions)
    admin.close()
    return sum(part.offset for part in told[topics.interactions].values())


async def test_only_committed_transactions_are_stored(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap, transactional_id=topics.interactions
    )
    await producer.start()
    try:
        for name in ("kept", "aborted", "kept too"):
            await producer.begin_transaction()
            event = as_bytes(an_interaction(id=name))
            await producer.send_and_wait(topics.interactions, event, partition=0)
            await (
                producer.abort_transaction() if name == "aborted" else producer.commit_transaction()
            )

        async with consuming(broker, topics, tmp_path) as running:
            await until(lambda: caught_up(running, 2), within_s=20)

            found = await running.ask("SELECT id FROM interactions ORDER BY position")
            assert [row["id"] for row in found] == ["kept", "kept too"]
    finally:
        await producer.stop()


async def test_missing_topics_are_waited_for_or_made_when_asked(
    broker: Broker, tmp_path: Path
) -> None:
    topics = names()
    async with consuming(broker, topics, tmp_path) as running:
        await until(lambda: problem(running), within_s=20)
        assert "ADAPTD_KAFKA_CREATE_TOPICS" in str(await problem(running))

    async with consuming(broker, topics, tmp_path, create_topics=True, partitions=2) as running:
        await until(running.is_running, within_s=20)
        assert len((await running.status()).partitions) == 4


async def test_without_a_broker_it_waits_and_says_so(tmp_path: Path) -> None:
    class Nowhere:
        bootstrap = f"127.0.0.1:{free_port()}"

    async with consuming(Nowhere, names(), tmp_path) as running:  # pyright: ignore[reportArgumentType] - only its address is read
        assert "does not answer" in str(await until(lambda: problem(running), within_s=20))


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_compressed_messages_are_stored(
    broker: Broker, topics: Topics, tmp_path: Path, compression: str
) -> None:
    values = [as_bytes(an_interaction()) for _ in range(200)]
    await asyncio.to_thread(broker.send, topics.interactions, values, compression=compression)
    async with consuming(broker, topics, tmp_path) as running:
        await until(lambda: caught_up(running, 200), within_s=20)


async def test_a_bomb_is_a_dead_letter_and_what_follows_is_stored(
    broker: Broker, tmp_path: Path
) -> None:
    topics = names()
    for name in (topics.interactions, topics.feedback):
        broker.create_topic(name, partitions=1)
    await send_bomb(broker, topics.interactions)
    await send(broker, topics.interactions, an_interaction(id="after"))

    async with consuming(broker, topics, tmp_path) as running:
        await until(lambda: caught_up(running, 1), within_s=20)

        [letter] = await running.letters.list()
        assert letter.reason == "unpacks_too_large"
        assert letter.detail.startswith("60 records, offsets 0 to 59, packed in")
