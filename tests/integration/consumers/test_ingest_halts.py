"""Gaps in a topic and failures of the store: ingestion halts or waits, and skips nothing."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient
from kafka.structs import TopicPartition

from adaptd.consumers.kafka.topic_admin import Topics
from tests.support.broker import Broker
from tests.support.event_samples import an_interaction
from tests.support.ingest_world import (
    Running,
    caught_up,
    consuming,
    is_halted,
    names,
    problem,
    send,
)
from tests.support.waiting import until


@pytest.fixture
def topics(broker: Broker) -> Topics:
    made = names()
    broker.create_topic(made.interactions)
    broker.create_topic(made.feedback, partitions=1)
    return made


def recreate(broker: Broker, topic: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    admin.delete_topics([topic])
    admin.close()
    while True:
        with suppress(Exception):  # until the broker has let go of the old one
            broker.create_topic(topic)
            return


def drop_records(broker: Broker, topic: str, before: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    admin.delete_records({TopicPartition(topic, 0): before})
    admin.close()


async def test_a_recreated_topic_halts_with_the_gap_until_it_is_accepted(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    await send(broker, topics.interactions, *(an_interaction() for _ in range(9)))
    async with consuming(broker, topics, tmp_path) as running:
        await until(lambda: caught_up(running, 9), within_s=20)
        await asyncio.to_thread(recreate, broker, topics.interactions)
        more = [an_interaction() for _ in range(60)]  # each partition's new log is longer
        await send(broker, topics.interactions, *more)

        error = await running.halted()

        assert topics.interactions in str(error)
        halt = await running.halts.current()
        assert halt is not None
        assert {gap["kind"] for gap in halt.detail["gaps"]} <= {"recreated", "missing"}
        assert sum(gap["next_offset"] for gap in halt.detail["gaps"]) == 9
        assert (await running.reads.counts()).interactions == 9

    async with consuming(broker, topics, tmp_path) as running:  # the next process
        await until(lambda: is_halted(running), within_s=10)
        await running.service.resync(actor="ada", reason="the topic was recreated on purpose")
        await until(lambda: caught_up(running, 69), within_s=30)

        [record] = await running.ask("SELECT * FROM transitions WHERE to_state = 'resynced'")
        assert record["actor"] == "ada"
        assert "recreated" in record["evidence"]


async def test_another_cluster_halts_and_ids_that_were_not_known_are_filled_in(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    await send(broker, topics.interactions, *(an_interaction() for _ in range(9)))
    ids = "SELECT DISTINCT cluster_id, topic_id FROM offsets WHERE topic = '{}'"
    async with consuming(broker, topics, tmp_path) as running:
        await until(lambda: caught_up(running, 9), within_s=20)
        known = await running.ask(ids.format(topics.interactions))
        await change(running, "UPDATE offsets SET cluster_id = NULL, topic_id = NULL")
    async with consuming(broker, topics, tmp_path) as running:
        await until(lambda: caught_up(running, 9), within_s=20)
        assert await running.ask(ids.format(topics.interactions)) == known
        await change(running, "UPDATE offsets SET cluster_id = 'the one before'")

    async with consuming(broker, topics, tmp_path) as running:
        error = str(await running.halted())
        assert "this is another cluster (everything before" in error
        assert "of the one before was read" in error

    async with consuming(broker, topics, tmp_path) as running:
        await until(lambda: is_halted(running), within_s=10)
        await running.service.resync(actor="ada", reason="we moved")
        await until(lambda: caught_up(running, 9), within_s=30)
        assert (await running.reads.counts()).duplicates == 9  # read again, stored once


async def test_records_that_retention_took_are_counted_and_halted_on(
    broker: Broker, tmp_path: Path
) -> None:
    topics = names()
    for name in (topics.interactions, topics.feedback):
        broker.create_topic(name, partitions=1)
    await send(broker, topics.interactions, *(an_interaction() for _ in range(3)))
    async with consuming(broker, topics, tmp_path) as running:
        await until(lambda: caught_up(running, 3), within_s=20)
    await send(broker, topics.interactions, *(an_interaction() for _ in range(10)))
    await asyncio.to_thread(drop_records, broker, topics.interactions, 8)

    async with consuming(broker, topics, tmp_path) as running:
        error = await running.halted()

        assert "offsets 3 to 7 are gone" in str(error)
        halt = await running.halts.current()
        assert halt is not None
        assert [gap["lost"] for gap in halt.detail["gaps"]] == [5]
        assert (await running.reads.counts()).interactions == 3


async def test_a_store_that_is_full_for_a_while_loses_nothing(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    async with consuming(broker, topics, tmp_path) as running:
        await until(running.is_running, within_s=20)
        running.sink.full = True
        await send(broker, topics.interactions, *(an_interaction() for _ in range(20)))
        assert "no room" in str(await until(lambda: problem(running), within_s=20))

        running.sink.full = False

        await until(lambda: caught_up(running, 20), within_s=20)
        assert (await running.reads.counts()).duplicates == 0
        assert await running.halts.current() is None


async def test_a_failure_that_does_not_pass_halts_and_skips_nothing(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    async with consuming(broker, topics, tmp_path) as running:
        await until(running.is_running, within_s=20)
        await rename(running, "interactions", "hidden")
        await send(broker, topics.interactions, *(an_interaction() for _ in range(20)))

        assert "cannot be stored" in str(await running.halted())

        assert await running.halts.current() is not None
        await rename(running, "hidden", "interactions")

    async with consuming(broker, topics, tmp_path) as running:
        await until(lambda: is_halted(running), within_s=10)
        await running.service.resume(actor="ada", reason="the table is back")
        await until(lambda: caught_up(running, 20), within_s=20)


async def rename(running: Running, table: str, name: str) -> None:
    await change(running, f"ALTER TABLE {table} RENAME TO {name}")


async def change(running: Running, statement: str) -> None:
    await running.database.write(lambda cursor: cursor.execute(statement))
