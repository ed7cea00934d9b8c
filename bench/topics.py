"""Topics of the benchmark: made, filled, paced and read back. With confluent-kafka, the fastest."""

import re
import time
from collections.abc import Iterable

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

PARTITIONS = 3
_TICK_S = 0.005
_ID = re.compile(rb'"id":"([0-9a-f-]{36})"')


def make_topics(bootstrap: str, names: Iterable[str], *, partitions: int = PARTITIONS) -> None:
    """Their records carry the broker's own time of the append."""
    options = {"message.timestamp.type": "LogAppendTime"}
    topics = [NewTopic(name, partitions, 1, config=options) for name in names]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for made in admin.create_topics(topics).values():
        made.result(30)


def fill(bootstrap: str, topic: str, values: Iterable[bytes]) -> None:
    """Append as fast as it goes, evenly over the partitions."""
    producer = _producer(bootstrap, linger_ms=50)
    for number, value in enumerate(values):
        while True:
            try:
                producer.produce(topic, value, partition=number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
    _flush(producer)


def pace(
    bootstrap: str, topic: str, values: list[bytes], *, per_s: int, partitions: int = PARTITIONS
) -> None:
    """Append so many a second, each sent at once."""
    producer = _producer(bootstrap, linger_ms=0)
    began_s = time.monotonic()
    sent = 0
    while sent < len(values):
        due = min(len(values), int((time.monotonic() - began_s) * per_s) + 1)
        for number in range(sent, due):
            producer.produce(topic, values[number], partition=number % partitions)
        sent = due
        producer.poll(0)
        time.sleep(_TICK_S)
    _flush(producer)


def append_times(
    bootstrap: str, topic: str, events: int, *, partitions: int = PARTITIONS
) -> dict[str, float]:
    """Event id → when the broker appended it (Unix time, to the millisecond)."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "readback"})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    found: dict[str, float] = {}
    deadline_s = time.monotonic() + 30
    while len(found) < events and time.monotonic() < deadline_s:
        for message in consumer.consume(10_000, timeout=0.5):
            match = _ID.search(message.value() or b"")
            if match is not None:
                found[match[1].decode()] = message.timestamp()[1] / 1000
    consumer.close()
    return found


def _producer(bootstrap: str, *, linger_ms: int) -> Producer:
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": linger_ms,
            "acks": "all",
            "queue.buffering.max.messages": 500_000,
        }
    )


def _flush(producer: Producer) -> None:
    if producer.flush(60):
        raise TimeoutError("the broker did not take all events within 60 s")
