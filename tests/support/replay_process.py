"""Replays as a process to be killed: `-m tests.support.replay_process STORE BOOTSTRAP TOPIC`.

Goes on with the replay that the store has, or begins one of the whole topic. Prints its progress.
"""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

import msgspec

from adaptd.consumers.rereading.replay import ReplayService
from adaptd.daemon.domain.replays import ReplayRequest, ReplayState
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.ingest.replays import ReplayStore
from adaptd.daemon.store.ingest.sink import EventStore
from tests.support.ingest_process import KEY
from tests.support.kafka_settings import replay_settings


async def _replay(path: Path, bootstrap: str, topic: str) -> None:
    database = Database.open(path)
    book = ReplayStore(database)
    service = ReplayService(
        replay_settings(bootstrap, {}),
        sink=EventStore(database, dedupe_window=timedelta(days=1)),
        book=book,
        key=KEY,
    )
    running = asyncio.create_task(service.run())
    found = await book.list() or [
        await service.begin(ReplayRequest(topics=[topic]), actor="test", reason="test")
    ]
    while True:
        replay = await book.get(found[0].replay_id)
        print(msgspec.json.encode(replay).decode(), flush=True)  # noqa: T201 - the test listens
        if replay.state is not ReplayState.RUNNING:
            break
        await asyncio.sleep(0.02)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    database.close()


if __name__ == "__main__":
    asyncio.run(_replay(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
