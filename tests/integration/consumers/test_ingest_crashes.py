"""Rebalances and SIGKILL under load: no event lost, and none stored twice."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from adaptd.consumers.kafka.topic_admin import Topics
from adaptd.daemon.store.database.database import Database, rows
from tests.support.broker import Broker
from tests.support.event_samples import an_interaction, as_bytes
from tests.support.ingest_process import IngestProcess
from tests.support.ingest_world import caught_up, consuming, names
from tests.support.waiting import LIMIT_S, until, until_blocking


@pytest.fixture
def topics(broker: Broker) -> Topics:
    made = names()
    broker.create_topic(made.interactions)
    broker.create_topic(made.feedback, partitions=1)
    return made


async def test_a_rebalance_loses_nothing_and_stores_nothing_twice(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    async with consuming(broker, topics, tmp_path) as running:
        await until(running.is_running, within_s=20)
        load = asyncio.create_task(
            asyncio.to_thread(steady_load, broker, topics.interactions, seconds=4)
        )
        await until(running.stored, within_s=20)
        await asyncio.to_thread(join_and_leave, broker, topics)
        sent = await load
        await until(lambda: caught_up(running, len(sent)), within_s=30)

        found = await running.ask("SELECT id FROM interactions")
        assert sorted(row["id"] for row in found) == sorted(sent)


def steady_load(broker: Broker, topic: str, *, seconds: float) -> list[str]:
    """Send about 1,000 events a second; return the ids that the broker acknowledged."""
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all", linger_ms=5)
    until_s, sent = time.monotonic() + seconds, []
    while time.monotonic() < until_s:
        events = [an_interaction() for _ in range(50)]
        futures = [producer.send(topic, as_bytes(event)) for event in events]
        for event, future in zip(events, futures, strict=True):
            future.get(timeout=LIMIT_S)
            sent.append(event["id"])
        time.sleep(0.02)
    producer.close()
    return sent


def join_and_leave(broker: Broker, topics: Topics) -> None:
    """A foreign member takes partitions over and gives them back."""
    stranger = KafkaConsumer(
        topics.interactions,
        topics.feedback,
        bootstrap_servers=broker.bootstrap,
        group_id=topics.interactions,
        partition_assignment_strategy=[RoundRobinPartitionAssignor],
        enable_auto_commit=False,
    )
    until_blocking(lambda: stranger.poll(timeout_ms=100) or stranger.assignment(), within_s=20)
    stranger.close()


def test_sigkill_under_load_loses_nothing_and_stores_nothing_twice(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    process = IngestProcess(tmp_path, bootstrap=broker.bootstrap, topics=topics)
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(steady_load, broker, topics.interactions, seconds=9)
        try:
            for _ in range(3):
                before = process.counts.get("interactions", 0)
                process.start()
                until_blocking(
                    lambda seen=before: process.counts.get("interactions", 0) > seen + 200,
                    within_s=30,
                )
                process.kill()
            process.start()
            sent = load.result()
            until_blocking(lambda: process.counts.get("interactions", 0) >= len(sent), within_s=30)
        finally:
            process.kill()

    database = Database.open(process.store_path)
    found = database.write_now(lambda cursor: rows(cursor, "SELECT id FROM interactions"))
    database.close()
    assert sorted(row["id"] for row in found) == sorted(sent)


@pytest.mark.parametrize("away_s", [0, 25])
def test_sigkill_of_the_broker_is_waited_out(
    broker: Broker, topics: Topics, tmp_path: Path, away_s: float
) -> None:
    """Holds also where the offsets could not be committed to the group in time."""
    process = IngestProcess(tmp_path, bootstrap=broker.bootstrap, topics=topics)
    process.start()
    try:
        broker.send(topics.interactions, [as_bytes(an_interaction()) for _ in range(20)])
        until_blocking(lambda: process.counts.get("interactions") == 20, within_s=30)

        broker.kill()
        time.sleep(away_s)
        broker.restart()
        broker.send(topics.interactions, [as_bytes(an_interaction()) for _ in range(20)])

        until_blocking(lambda: process.counts.get("interactions") == 40, within_s=40)
        assert process.is_alive()
    finally:
        process.kill()
