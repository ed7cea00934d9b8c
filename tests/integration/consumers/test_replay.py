"""Replays from a real broker: the log's events, once each, whatever happens meanwhile."""

import asyncio
import itertools
import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from adaptd.consumers.kafka.service import IngestService
from adaptd.consumers.kafka.topic_admin import Topics
from adaptd.consumers.rereading.replay import ReplayService
from adaptd.daemon.domain.replays import Replay, ReplayRequest, ReplayState
from adaptd.daemon.store.database.database import Database, rows
from adaptd.daemon.store.ingest.event_reads import EventReads
from adaptd.daemon.store.ingest.halts import HaltStore
from adaptd.daemon.store.ingest.offsets import load_offsets
from adaptd.daemon.store.ingest.replays import ReplayStore
from adaptd.daemon.store.ingest.sink import EventStore
from adaptd.daemon.wire.errors import HaltError, RefusedError
from adaptd.daemon.wire.events import SIGNATURE_HEADER
from adaptd.daemon.wire.signing import sign
from tests.support.broker import ROOT, Broker
from tests.support.event_samples import a_rating, an_interaction, as_bytes
from tests.support.ingest_process import KEY
from tests.support.ingest_world import send_bomb
from tests.support.kafka_settings import ingest_settings, replay_settings
from tests.support.waiting import until

_number = itertools.count(1)


class World:
    """A store, a replayer and (once asked for) a live consumer."""

    def __init__(self, database: Database, broker: Broker, topics: Topics, home: Path) -> None:
        self.database = database
        self.sink = EventStore(database, dedupe_window=timedelta(days=1))
        self.reads = EventReads(database)
        self.book = ReplayStore(database)
        asked = replay_settings(broker.bootstrap, topics.kinds)
        self.replays = ReplayService(asked, sink=self.sink, book=self.book, key=KEY)
        self.live = IngestService(
            ingest_settings(
                broker.bootstrap,
                home,
                group=topics.interactions,
                topics=topics,
                session_timeout_s=6,
            ),
            sink=self.sink,
            halts=HaltStore(database),
            key=KEY,
        )

    async def replay(self, topic: str, **asked: Any) -> Replay:
        """Begin a replay and wait for its end."""
        request = ReplayRequest(topics=[topic], **asked)
        begun = await self.replays.begin(request, actor="ada", reason="test")
        return await self.ended(begun.replay_id)

    async def ended(self, replay_id: str) -> Replay:
        async def is_over() -> Replay | None:
            found = await self.book.get(replay_id)
            return None if found.state is ReplayState.RUNNING else found

        return await until(is_over, within_s=30)

    async def ids(self) -> list[str]:
        """The stored ids, sorted, each as often as it is stored."""
        return [row["id"] for row in await self.ask("SELECT id FROM interactions ORDER BY id")]

    async def ask(self, statement: str) -> list[dict[str, Any]]:
        return await self.database.read(lambda cursor: rows(cursor, statement))

    async def run(self, statement: str) -> None:
        await self.database.write(lambda cursor: cursor.execute(statement))


@asynccontextmanager
async def world(
    broker: Broker, topics: Topics, home: Path, *, live: bool = False
) -> AsyncIterator[World]:
    database = Database.open(home / "store.duckdb")
    made = World(database, broker, topics, home)
    tasks = [asyncio.create_task(made.replays.run())]
    if live:
        tasks.append(asyncio.create_task(made.live.run()))
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError, HaltError):
                await task
        database.close()


@pytest.fixture
def topics(broker: Broker) -> Topics:
    run = f"{next(_number)}-{uuid.uuid4().hex[:6]}"
    made = Topics(f"replayed-{run}", f"replayed-feedback-{run}")
    broker.create_topic(made.interactions, partitions=2)
    broker.create_topic(made.feedback, partitions=1)
    return made


def events(first: int, count: int) -> list[bytes]:
    return [as_bytes(an_interaction(id=f"e{n:06}")) for n in range(first, first + count)]


async def send(broker: Broker, topic: str, values: list[bytes], **more: Any) -> None:
    await asyncio.to_thread(broker.send, topic, values, **more)


def named(count: int) -> list[str]:
    return [f"e{number:06}" for number in range(count)]


async def test_what_is_missing_comes_back_and_nothing_comes_twice(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    async with world(broker, topics, tmp_path, live=True) as here:
        await send(broker, topics.interactions, [*events(0, 2_000), b"broken"])
        await until(lambda: _stored(here, 2_000), within_s=30)
        await until(lambda: _lag_is_0(here), within_s=10)
        before = await here.database.read(lambda cursor: load_offsets(cursor, "kafka"))
        await here.run("DELETE FROM interactions WHERE id >= 'e000500' AND id < 'e001500'")
        await here.run("UPDATE interactions SET ingested_at = ingested_at - INTERVAL 400 DAY")

        done = await here.replay(topics.interactions)

        assert done.state is ReplayState.DONE
        assert (done.interactions, done.duplicates, done.dead_letters) == (1_000, 1_000, 0)
        assert (done.read, done.size) == (2_001, 2_001)
        assert await here.ids() == named(2_000)
        after = await here.database.read(lambda cursor: load_offsets(cursor, "kafka"))
        assert {at: offset.next_offset for at, offset in after.items()} == {
            at: offset.next_offset for at, offset in before.items()
        }
        again = await here.replay(topics.interactions)
        assert (again.interactions, again.duplicates) == (0, 2_000)


async def test_a_replay_beside_the_live_consumer_stores_every_event_once(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    async with world(broker, topics, tmp_path, live=True) as here:
        await send(broker, topics.interactions, events(0, 2_000))
        await until(lambda: _stored(here, 1), within_s=30)
        sending = asyncio.create_task(send(broker, topics.interactions, events(2_000, 4_000)))
        replays = [await here.replay(topics.interactions) for _ in range(3)]
        await sending
        await until(lambda: _stored(here, 6_000), within_s=30)

        assert await here.ids() == named(6_000)
        assert [replay.interactions for replay in replays] == [0, 0, 0]
        assert all(part.end <= 6_000 for replay in replays for part in replay.ranges)


async def test_signatures_are_checked_as_in_the_live_way(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    archive = broker.create_topic(f"{topics.interactions}-archive", partitions=1)
    value = as_bytes(an_interaction(id="signed"))
    await send(broker, archive, [value], adaptd_signature=sign(KEY, value).encode())
    await send(broker, archive, [as_bytes(an_interaction(id="plain"))])
    await send(broker, archive, [as_bytes(an_interaction(id="forged"))], adaptd_signature=b"f" * 64)
    await send(broker, archive, [as_bytes(a_rating("signed", source="reviewer"))])

    async with world(broker, topics, tmp_path) as here:
        done = await here.replay(archive)

        assert (done.interactions, done.dead_letters) == (2, 2)
        found = await here.ask("SELECT id, trusted, source FROM interactions ORDER BY id")
        source = f"replay:{done.replay_id}"
        assert found == [
            {"id": "plain", "trusted": False, "source": source},
            {"id": "signed", "trusted": True, "source": source},
        ]
        reasons = await here.ask("SELECT reason FROM dead_letters ORDER BY position")
        assert [row["reason"] for row in reasons] == ["bad_signature", "source_not_permitted"]
    assert SIGNATURE_HEADER == "adaptd-signature"


async def test_a_bomb_is_a_dead_letter_in_a_replay_too(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    archive = broker.create_topic(f"{topics.interactions}-bomb", partitions=1)
    await send_bomb(broker, archive)
    await send(broker, archive, events(0, 1))

    async with world(broker, topics, tmp_path) as here:
        done = await here.replay(archive)

        assert (done.state, done.interactions, done.dead_letters) == (ReplayState.DONE, 1, 1)
        assert await here.ask("SELECT reason, position FROM dead_letters") == [
            {"reason": "unpacks_too_large", "position": 59}
        ]


async def test_aborted_transactions_are_not_replayed(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    archive = broker.create_topic(f"{topics.interactions}-tx", partitions=1)
    await asyncio.to_thread(_send_transactions, broker, archive)

    async with world(broker, topics, tmp_path) as here:
        done = await here.replay(archive)

        assert done.state is ReplayState.DONE
        assert await here.ids() == ["e000000", "e000001", "e000004"]
        assert done.read == done.size > 3, "markers and aborted records have offsets too"


async def test_a_part_is_chosen_by_offsets_or_by_times(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    archive = broker.create_topic(f"{topics.interactions}-part", partitions=1)
    await send(broker, archive, events(0, 10))
    await asyncio.sleep(0.05)
    middle = datetime.now(UTC)
    await asyncio.sleep(0.05)
    await send(broker, archive, events(10, 10))

    async with world(broker, topics, tmp_path) as here:
        await here.replay(archive, from_offset=3, to_offset=5)
        assert await here.ids() == ["e000003", "e000004"]
        late = await here.replay(archive, from_time=middle)
        assert (late.ranges[0].start, late.interactions) == (10, 10)
        early = await here.replay(archive, to_time=middle)
        assert (early.ranges[0].end, early.interactions, early.duplicates) == (10, 8, 2)
        assert await here.ids() == named(20)
        with pytest.raises(RefusedError, match="no topic"):
            await here.replay(f"{archive}-absent")


async def test_a_cancelled_replay_ends_and_keeps_what_it_has(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    archive = broker.create_topic(f"{topics.interactions}-long", partitions=2)
    await send(broker, archive, events(0, 6_000))

    async with world(broker, topics, tmp_path) as here:
        asked = ReplayRequest(topics=[archive])
        begun = await here.replays.begin(asked, actor="ada", reason="test")
        cancelled = await here.replays.cancel(begun.replay_id, actor="ada", reason="a mistake")

        assert (cancelled.state, cancelled.problem) == (ReplayState.CANCELLED, "a mistake")
        assert (await here.replay(archive)).state is ReplayState.DONE
        assert await here.ids() == named(6_000)
        assert [row.state for row in await here.book.list()] == ["done", "cancelled"]


def test_a_killed_replay_goes_on_where_it_was(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    archive = broker.create_topic(f"{topics.interactions}-killed", partitions=2)
    broker.send(archive, events(0, 12_000))
    store = tmp_path / "store.duckdb"
    command = [
        sys.executable,
        "-m",
        "tests.support.replay_process",
        str(store),
        broker.bootstrap,
        archive,
    ]
    kills = 0

    for _ in range(20):
        last = _run_until(command, lambda seen, low=kills * 4_000: seen["read"] > low)
        if last["state"] != "running":
            break
        kills += 1

    assert kills >= 2
    assert (last["state"], last["read"]) == ("done", 12_000)
    database = Database.open(store)
    try:
        [row] = database.write_now(
            lambda cursor: rows(
                cursor, "SELECT count(*) AS stored, count(DISTINCT id) AS ids FROM interactions"
            )
        )
    finally:
        database.close()
    assert row == {"stored": 12_000, "ids": 12_000}
    assert last["duplicates"] == 0, "rows and offsets were stored together"


def _run_until(command: list[str], enough: Any) -> dict[str, Any]:
    """Start the process, SIGKILL it once it is far enough, and return its last line."""
    last: dict[str, Any] = {"state": "running", "read": 0}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith(b'{"replay_id"'):
                continue  # a log line
            last = json.loads(line)
            if last["state"] == "running" and enough(last):
                process.kill()
                break
    return last


def _send_transactions(broker: Broker, topic: str) -> None:
    producer = KafkaProducer(
        bootstrap_servers=broker.bootstrap, transactional_id=f"tx-{topic}", acks="all"
    )
    try:
        producer.init_transactions()
        for first, count, commits in ((0, 2, True), (2, 2, False), (4, 1, True), (5, 1, False)):
            producer.begin_transaction()
            for value in events(first, count):
                producer.send(topic, value)
            if commits:
                producer.commit_transaction()
            else:
                producer.abort_transaction()
    finally:
        producer.close()


async def _stored(here: World, count: int) -> bool:
    return (await here.reads.counts()).interactions >= count


async def _lag_is_0(here: World) -> bool:
    return all(part.lag == 0 for part in (await here.live.status()).partitions)
