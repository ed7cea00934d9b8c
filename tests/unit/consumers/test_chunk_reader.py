"""Chunks from Kafka: the offsets to begin at, and the signatures to trust."""

import asyncio
from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

import pytest

from adaptd.consumers.kafka.chunk_reader import ChunkReader
from adaptd.consumers.kafka.faust_app import Chunk
from adaptd.consumers.kafka.topic_admin import BrokerAwayError, Cluster
from adaptd.consumers.kafka.topic_identity import IDENTITY_KINDS, GapError
from adaptd.daemon.domain.ingest import KAFKA, LogRange, Partition
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.wire.errors import ChainError
from adaptd.daemon.wire.events import SIGNATURE_HEADER
from adaptd.daemon.wire.signing import derive, sign
from tests.support.event_samples import a_correction, an_interaction, as_bytes
from tests.support.ingesting import Ingesting
from tests.support.waiting import LIMIT_S

KEY = derive(b"secret", "events")
AT = Partition("interactions", 0)


class KafkaRecord(NamedTuple):
    """The fields of aiokafka's ConsumerRecord that are read."""

    offset: int
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    topic: str = AT.topic
    partition: int = AT.number
    timestamp: int = 1_793_534_400_000


@pytest.fixture
async def ingesting() -> AsyncIterator[Ingesting]:
    database = Database.open(":memory:")
    yield Ingesting(database)
    database.close()


class Log:
    """A broker with one partition."""

    earliest, topic_id, cluster_id, partitions, is_away = 0, "a", "c", 1, False

    async def describe(self) -> Cluster:
        if self.is_away:
            raise BrokerAwayError("kafka", "it does not answer", "Wait")
        topics = {AT.topic: (self.topic_id, self.partitions)}
        return Cluster(cluster_id=self.cluster_id, topics=topics)

    async def read_ranges(self, wanted: Collection[Partition]) -> dict[Partition, LogRange]:
        found = LogRange(self.topic_id, self.earliest, 20, self.cluster_id)
        return {at: found for at in wanted if at == AT}


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
async def reader(ingesting: Ingesting, log: Log) -> AsyncIterator[ChunkReader]:
    made = ChunkReader(
        ingesting.sink,
        key=KEY,
        kinds={AT.topic: "interaction"},
        unsigned_sources=frozenset({"user"}),
        broker=log,
    )
    yield made
    await made.close()


def signed(offset: int, event: Any, key: bytes = KEY) -> KafkaRecord:
    value = as_bytes(event)
    return KafkaRecord(offset, value, ((SIGNATURE_HEADER, sign(key, value).encode()),))


async def store(reader: ChunkReader, chunks: list[Chunk]) -> None:
    committed = asyncio.Event()
    await reader.accept(chunks, committed.set)
    async with asyncio.timeout(LIMIT_S):
        await committed.wait()


async def test_a_new_partition_is_read_from_its_earliest_offset_and_pinned(
    reader: ChunkReader, ingesting: Ingesting, log: Log
) -> None:
    log.earliest = 7
    assert await reader.begin([AT]) == {AT: 7}

    stored = (await ingesting.sink.offsets(KAFKA))[AT]
    assert (stored.next_offset, stored.topic_id, stored.cluster_id) == (7, "a", "c")


async def test_a_known_partition_is_read_on_from_where_it_was_stored(reader: ChunkReader) -> None:
    await reader.begin([AT])
    await store(reader, [Chunk(AT, 0, [KafkaRecord(4, as_bytes(an_interaction()))])])

    assert await reader.begin([AT]) == {AT: 5}


async def test_a_gap_is_never_jumped_over(reader: ChunkReader, log: Log) -> None:
    await reader.begin([AT])
    log.earliest = 3

    with pytest.raises(GapError, match="offsets 0 to 2 are gone"):
        await reader.begin([AT])


async def test_after_a_topic_is_recreated_while_read_nothing_is_stored(
    reader: ChunkReader, ingesting: Ingesting, log: Log
) -> None:
    await reader.begin([AT])
    await store(reader, [Chunk(AT, 0, [KafkaRecord(4, as_bytes(an_interaction()))])])
    log.topic_id = "b"

    with pytest.raises(GapError, match=r"recreated \(everything before 5 of id a was read"):
        await reader.begin([AT])

    with pytest.raises(GapError):
        await reader.accept([Chunk(AT, 5, [KafkaRecord(5, as_bytes(an_interaction()))])], list)
    assert (await ingesting.sink.offsets(KAFKA))[AT].next_offset == 5


async def test_in_doubt_only_the_ids_of_topics_and_cluster_count(
    reader: ChunkReader, log: Log
) -> None:
    await reader.begin([AT])
    log.partitions, log.earliest = 2, 3  # added since; what was fetched may be older
    assert await reader.verify_topics()
    log.is_away = True
    assert not await reader.verify_topics()
    log.is_away, log.cluster_id = False, "d"

    with pytest.raises(GapError, match="another cluster"):
        await reader.verify_topics()
    with pytest.raises(GapError, match="another cluster"):
        await reader.failure


async def test_a_gap_names_what_is_stored_in_the_end(
    reader: ChunkReader, ingesting: Ingesting, log: Log
) -> None:
    await reader.begin([AT])
    await reader.accept([Chunk(AT, 0, [KafkaRecord(8, as_bytes(an_interaction()))])], list)
    await asyncio.sleep(0)  # it is being written
    log.topic_id = "b"

    with pytest.raises(GapError) as caught:
        await reader.check_gaps(await log.read_ranges([AT]), kinds=IDENTITY_KINDS)

    stored = (await ingesting.sink.offsets(KAFKA))[AT]
    assert [gap.next_offset for gap in caught.value.gaps] == [stored.next_offset]


async def test_once_closed_nothing_is_stored(reader: ChunkReader, ingesting: Ingesting) -> None:
    await reader.begin([AT])
    for start in range(3):  # one is written, others wait
        chunk = Chunk(AT, start, [KafkaRecord(start, as_bytes(an_interaction()))])
        await reader.accept([chunk], list)
    await reader.close()
    stored = (await ingesting.sink.offsets(KAFKA))[AT].next_offset

    await asyncio.sleep(0.05)
    assert stored < 3  # else none was left to be stored
    assert (await ingesting.sink.offsets(KAFKA))[AT].next_offset == stored


async def test_a_partition_the_broker_does_not_know_yet_is_asked_for_again(
    reader: ChunkReader,
) -> None:
    with pytest.raises(BrokerAwayError, match="does not know"):
        await reader.begin([AT, Partition("elsewhere", 0)])


async def test_only_a_gateways_signature_is_trusted(
    reader: ChunkReader, ingesting: Ingesting
) -> None:
    await reader.begin([AT])

    await store(
        reader,
        [
            Chunk(
                AT,
                0,
                [
                    signed(0, an_interaction(id="signed")),
                    KafkaRecord(1, as_bytes(an_interaction(id="unsigned"))),
                    signed(2, an_interaction(id="forged"), key=b"another key"),
                    signed(3, a_correction("signed", id="agent", source="agent")),
                    KafkaRecord(4, as_bytes(a_correction("signed", source="agent"))),
                ],
            )
        ],
    )

    assert await ingesting.ask("SELECT id, trusted FROM interactions ORDER BY position") == [
        {"id": "signed", "trusted": True},
        {"id": "unsigned", "trusted": False},
    ]
    assert await ingesting.ask("SELECT id, principal, origin FROM feedback") == [
        {"id": "agent", "principal": "gateway", "origin": "agent"}
    ]
    letters = await ingesting.ask("SELECT position, reason FROM dead_letters ORDER BY position")
    assert [tuple(row.values()) for row in letters] == [
        (2, "bad_signature"),
        (4, "source_not_permitted"),
    ]


async def test_the_time_of_the_last_record_is_kept(
    reader: ChunkReader, ingesting: Ingesting
) -> None:
    await reader.begin([AT])
    record = KafkaRecord(0, as_bytes(an_interaction()))
    timeless = KafkaRecord(1, as_bytes(an_interaction()), timestamp=10**18)

    await store(reader, [Chunk(AT, 0, [record])])
    await store(reader, [Chunk(AT, 1, [timeless])])

    stored = (await ingesting.sink.offsets(KAFKA))[AT]
    assert stored.record_at == datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert stored.next_offset == 2


async def test_after_a_failure_nothing_is_stored_and_nobody_waits(
    reader: ChunkReader, ingesting: Ingesting
) -> None:
    await reader.begin([AT])
    chunks = [
        [Chunk(AT, start, [KafkaRecord(start, as_bytes(an_interaction()))])]
        for start in (3, 0, 1, 2)
    ]  # the first one leaves a gap behind it
    stored: list[int] = []

    async with asyncio.timeout(LIMIT_S):
        await reader.accept(chunks[0], lambda: stored.append(0))
        with pytest.raises(ChainError):
            await reader.failure
        for number, after in enumerate(chunks[1:], 1):
            with pytest.raises(ChainError):
                await reader.accept(after, partial(stored.append, number))

    assert stored == []
    assert await ingesting.ask("FROM interactions") == []
