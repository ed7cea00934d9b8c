"""The broker as the checker and the faults see it: what a topic holds, and what is done to it."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from kafka import KafkaConsumer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import KafkaError, UnknownTopicOrPartitionError
from kafka.protocol.consumer import OffsetSpec
from kafka.structs import TopicPartition

from adaptd.consumers.kafka.topic_admin import Topics
from tests.chaos.ledger import Place
from tests.support.broker import Broker
from tests.support.waiting import until_blocking

_READ_LIMIT_S = 90
_EXPIRED_S = 45


class Log(NamedTuple):
    """What can be read of topics. `starts` by "topic/partition": offsets before it are gone."""

    records: Mapping[Place, bytes | None]
    starts: Mapping[str, int]


def read_log(bootstrap: str, topics: Iterable[str]) -> Log:
    """Every committed record that the topics still hold, read anew from their beginning."""
    consumer: Any = KafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        enable_auto_commit=False,
        max_poll_records=5_000,
        max_partition_fetch_bytes=8 * 2**20,
    )
    try:
        parts = [TopicPartition(t, n) for t in topics for n in consumer.partitions_for_topic(t)]
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        starts, ends = consumer.beginning_offsets(parts), consumer.end_offsets(parts)
        found: dict[Place, bytes | None] = {}
        deadline = time.monotonic() + _READ_LIMIT_S
        while any(consumer.position(part) < end for part, end in ends.items()):
            assert time.monotonic() < deadline, f"the log is not read after {_READ_LIMIT_S} s"
            for records in consumer.poll(timeout_ms=500).values():
                for one in records:
                    found[Place(one.topic, one.partition, one.offset)] = one.value
        return Log(found, {f"{at.topic}/{at.partition}": first for at, first in starts.items()})
    finally:
        consumer.close()


@contextmanager
def admin(broker: Broker) -> Iterator[Any]:
    client = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    try:
        yield client
    finally:
        client.close()


def drop_before(broker: Broker, topic: str, offsets: Mapping[int, int]) -> None:
    """As retention would: records of each partition before its offset are gone."""
    with admin(broker) as client:
        client.delete_records(
            {TopicPartition(topic, part): offset for part, offset in offsets.items()}
        )


def expire(
    broker: Broker, topic: str, *, keep_ms: int, beyond: Mapping[int, int]
) -> dict[int, int]:
    """Have the broker keep records for so long only; it deletes whole segments.

    Says where each partition begins, once all begin after their offset in `beyond`.
    """
    parts = {TopicPartition(topic, part): OffsetSpec.EARLIEST for part in beyond}
    with admin(broker) as client:
        settings = {"retention.ms": str(keep_ms)}
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, settings)])

        def deleted() -> dict[int, int] | None:
            found = client.list_partition_offsets(parts)
            starts = {at.partition: first.offset for at, first in found.items()}
            return starts if all(starts[part] > seen for part, seen in beyond.items()) else None

        return until_blocking(deleted, within_s=_EXPIRED_S, every_s=0.2) or {}


def delete_topic(broker: Broker, topic: str) -> None:
    with admin(broker) as client:
        client.delete_topics([topic])
        until_blocking(lambda: topic not in client.list_topics(), within_s=20)


def make_anew(broker: Broker, topic: str, *, partitions: int) -> None:
    """Delete a topic and make it again under its name."""
    delete_topic(broker, topic)

    def made() -> bool:
        with suppress(KafkaError):  # until the broker has let go of the old one
            broker.create_topic(topic, partitions=partitions)
            return True
        return False

    until_blocking(made, within_s=20)


def told(broker: Broker, group: str) -> dict[str, int]:
    """What Kafka's own lag tools see of a group, by "topic/partition"."""
    with admin(broker) as client:
        try:
            found = client.list_group_offsets(group)[group]
        except UnknownTopicOrPartitionError:
            return {}
    return {f"{at.topic}/{at.partition}": stored.offset for at, stored in found.items()}


def join_and_leave(broker: Broker, topics: Topics, group: str) -> None:
    """A foreign member takes partitions over and gives them back."""
    stranger: Any = KafkaConsumer(
        *topics.kinds,
        bootstrap_servers=broker.bootstrap,
        group_id=group,
        partition_assignment_strategy=[RoundRobinPartitionAssignor],
        enable_auto_commit=False,
    )
    try:
        until_blocking(lambda: stranger.poll(timeout_ms=100) or stranger.assignment(), within_s=30)
    finally:
        stranger.close()
