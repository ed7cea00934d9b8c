"""The ingest service over a store in a folder, on topics of its own."""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from adaptd.consumers.kafka.service import IngestService, IngestStatus
from adaptd.consumers.kafka.topic_admin import Topics
from adaptd.daemon.domain.ingest import Decoded, Written
from adaptd.daemon.store.database.database import Database, rows
from adaptd.daemon.store.ingest.dead_letters import DeadLetterStore
from adaptd.daemon.store.ingest.event_reads import EventReads
from adaptd.daemon.store.ingest.halts import HaltStore
from adaptd.daemon.store.ingest.sink import EventStore
from adaptd.daemon.wire.errors import HaltError, StoreFullError
from tests.support.broker import Broker
from tests.support.event_samples import as_bytes
from tests.support.ingest_process import KEY
from tests.support.kafka_settings import ingest_settings
from tests.support.waiting import LIMIT_S

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
            await asyncio.wait_for(self.task, timeout=LIMIT_S)
        return caught.value


@asynccontextmanager
async def consuming(
    broker: Broker, topics: Topics, home: Path, **settings: Any
) -> AsyncIterator[Running]:
    """The service over a file store in `home`, which a later call opens again."""
    database = Database.open(home / "store.duckdb")
    store = MaybeFull(database, dedupe_window=timedelta(days=1))
    service = IngestService(
        ingest_settings(
            broker.bootstrap,
            home,
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


async def send(broker: Broker, topic: str, *events: Any) -> None:
    values = [event if isinstance(event, bytes) else as_bytes(event) for event in events]
    await asyncio.to_thread(broker.send, topic, values)


async def send_bomb(broker: Broker, topic: str) -> None:
    """One batch of 60 records: 54 MB in 60 kB."""
    bomb = [b" " * 900_000] * 60
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap,
        compression_type="gzip",
        max_request_size=1 << 30,
        max_batch_size=1 << 30,
        linger_ms=500,
    )
    await producer.start()
    try:
        sent = [await producer.send(topic, value) for value in bomb]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def caught_up(running: Running, interactions: int) -> bool:
    return await running.stored() >= interactions and await running.lag() == 0


async def is_halted(running: Running) -> bool:
    return (await running.status()).state == "halted"


async def problem(running: Running) -> str | None:
    status = await running.status()
    return status.problem if status.state == "waiting" else None
