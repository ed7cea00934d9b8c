"""Kafka → Faust → store, against a real broker: no event lost, none twice, nothing stops it."""

import asyncio
import itertools
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.structs import TopicPartition

from consumers.service import IngestService, IngestSettings, IngestStatus
from consumers.topics import Topics
from daemon.demo.broker import free_port
from daemon.domain.errors import HaltError, StoreFullError
from daemon.domain.events import SIGNATURE_HEADER
from daemon.domain.ingest import Decoded, Written
from daemon.domain.signing import sign
from daemon.store.database import Database, rows
from daemon.store.dead_letters import DeadLetterStore
from daemon.store.event_reads import EventReads
from daemon.store.events import EventStore
from daemon.store.halts import HaltStore
from tests.broker import Broker
from tests.event_samples import a_correction, a_rating, an_interaction, as_bytes
from tests.ingest_process import KEY, IngestProcess
from tests.waiting import until, until_blocking

_number = itertools.count(1)


class MaybeFull(EventStore):
    """The store, on a disk that fills up and is emptied again."""

    full = False

    async def write(self, decoded: Decoded) -> Written:
        if self.full:
            raise StoreFullError("store", "there is no room", "Make some")
        return await super().write(decoded)


class Running:
    """A store, and the service that fills it while it runs."""

    def __init__(self, database: Database, sink: MaybeFull, service: IngestService) -> None:
        self.database = database
        self.service = service
        self.sink = sink
        self.reads = EventReads(database)
        self.halts = HaltStore(database)
        self.letters = DeadLetterStore(database)
        self.task: asyncio.Task[None] | None = None

    async def status(self) -> IngestStatus:
        return await self.service.status()

    async def is_running(self) -> bool:
        return (await self.status()).state == "running"

    async def stored(self, kind: str = "interactions") -> int:
        if self.task is not None and self.task.done():
            self.task.result()
        return getattr(await self.reads.counts(), kind)

    async def lag(self) -> int:
        return sum(
            -1 if part.lag is None else part.lag for part in (await self.status()).partitions
        )

    async def ask(self, statement: str) -> list[dict[str, Any]]:
        return await self.database.read(lambda cursor: rows(cursor, statement))

    async def halted(self) -> HaltError:
        """Wait for the service to end by halting."""
        assert self.task is not None
        with pytest.raises(HaltError) as caught:
            await asyncio.wait_for(self.task, timeout=30)
        return caught.value


@asynccontextmanager
async def consuming(
    broker: Broker, topics: Topics, home: Path, **settings: Any
) -> AsyncIterator[Running]:
    """The service over a file store in `home`, which a later call opens again."""
    database = Database.open(home / "store.duckdb")
    store = MaybeFull(database, dedupe_window=timedelta(days=1))
    service = IngestService(
        IngestSettings(
            bootstrap=broker.bootstrap,
            directory=home,
            group=topics.interactions,
            topics=topics,
            session_timeout_s=6,
            **settings,
        ),
        sink=store,
        halts=HaltStore(database),
        key=KEY,
    )
    running = Running(database, store, service)
    running.task = asyncio.create_task(service.run())
    try:
        yield running
    finally:
        running.task.cancel()
        with suppress(asyncio.CancelledError, HaltError):
            await running.task
        database.close()


def names() -> Topics:
    run = f"{next(_number)}-{uuid.uuid4().hex[:6]}"
    return Topics(f"interactions-{run}", f"feedback-{run}")


@pytest.fixture
def topics(broker: Broker) -> Topics:
    made = names()
    broker.create_topic(made.interactions)
    broker.create_topic(made.feedback, partitions=1)
    return made


async def send(broker: Broker, topic: str, *events: Any) -> None:
    values = [event if isinstance(event, bytes) else as_bytes(event) for event in events]
    await asyncio.to_thread(broker.send, topic, values)


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


async def caught_up(running: Running, interactions: int) -> bool:
    return await running.stored() >= interactions and await running.lag() == 0


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
    """What Kafka's lag tools see of us."""
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    told = admin.list_group_offsets(topics.interactions)
    admin.close()
    return sum(part.offset for part in told[topics.interactions].values())


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
    """About 1,000 events a second; returns the ids that the broker acknowledged."""
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all", linger_ms=5)
    until_s, sent = time.monotonic() + seconds, []
    while time.monotonic() < until_s:
        events = [an_interaction() for _ in range(50)]
        futures = [producer.send(topic, as_bytes(event)) for event in events]
        for event, future in zip(events, futures, strict=True):
            future.get(timeout=30)
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


def test_sigkill_of_the_broker_is_waited_out(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    process = IngestProcess(tmp_path, bootstrap=broker.bootstrap, topics=topics)
    process.start()
    try:
        broker.send(topics.interactions, [as_bytes(an_interaction()) for _ in range(20)])
        until_blocking(lambda: process.counts.get("interactions") == 20, within_s=30)

        broker.kill()
        broker.restart()
        broker.send(topics.interactions, [as_bytes(an_interaction()) for _ in range(20)])

        until_blocking(lambda: process.counts.get("interactions") == 40, within_s=40)
        assert process.is_alive()
    finally:
        process.kill()


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


async def test_a_topic_made_anew_halts_with_the_gap_until_it_is_accepted(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    await send(broker, topics.interactions, *(an_interaction() for _ in range(9)))
    async with consuming(broker, topics, tmp_path) as running:
        await until(lambda: caught_up(running, 9), within_s=20)
        await asyncio.to_thread(recreate, broker, topics.interactions)
        await send(broker, topics.interactions, *(an_interaction() for _ in range(5)))

        error = await running.halted()

        assert topics.interactions in str(error)
        halt = await running.halts.current()
        assert halt is not None
        assert {gap["kind"] for gap in halt.detail["gaps"]} <= {"recreated", "missing"}
        assert sum(gap["next_offset"] for gap in halt.detail["gaps"]) >= 9

    async with consuming(broker, topics, tmp_path) as running:  # the next process
        await until(lambda: is_halted(running), within_s=10)
        await running.service.resync(actor="ada", reason="the topic was made anew on purpose")
        await until(lambda: caught_up(running, 14), within_s=30)

        [record] = await running.ask("SELECT * FROM transitions WHERE to_state = 'resynced'")
        assert record["actor"] == "ada"
        assert "recreated" in record["evidence"]


async def is_halted(running: Running) -> bool:
    return (await running.status()).state == "halted"


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
    statement = f"ALTER TABLE {table} RENAME TO {name}"
    await running.database.write(lambda cursor: cursor.execute(statement))


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


async def problem(running: Running) -> str | None:
    status = await running.status()
    return status.problem if status.state == "waiting" else None


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
    bomb = [b" " * 900_000] * 60  # of one batch: 54 MB in 60 kB
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap,
        compression_type="gzip",
        max_request_size=1 << 30,
        max_batch_size=1 << 30,
        linger_ms=500,
    )
    await producer.start()
    try:
        sent = [await producer.send(topics.interactions, value) for value in bomb]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
    await send(broker, topics.interactions, an_interaction(id="after"))

    async with consuming(broker, topics, tmp_path) as running:
        await until(lambda: caught_up(running, 1), within_s=20)

        [letter] = await running.letters.list()
        assert letter.reason == "unpacks_too_large"
        assert letter.detail.startswith("60 records, offsets 0 to 59, packed in")
