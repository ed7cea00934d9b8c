"""adaptd's consumer over its event store, put together as the daemon does."""

import asyncio
import os
from datetime import timedelta

from adaptd.consumers.kafka.service import IngestService, IngestSettings
from adaptd.consumers.kafka.topic_admin import Topics
from adaptd.daemon.domain.ingest import Decoded, Written
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.ingest.halts import HaltStore
from adaptd.daemon.store.ingest.sink import EventStore
from adaptd.daemon.system.interpreter import tune_interpreter
from bench.job import Job, Progress, read_job

_POLL_S = 0.05


class _WatchedStore(EventStore):
    progress: Progress

    async def write(self, decoded: Decoded) -> Written:
        written = await super().write(decoded)
        self.progress.committed(written.interactions)
        return written


async def main(job: Job) -> None:
    tune_interpreter()
    database = Database.open(job.store)
    store = _WatchedStore(database, dedupe_window=timedelta(days=1))
    store.progress = progress = Progress(job)
    settings = IngestSettings(
        bootstrap=job.bootstrap,
        directory=job.store.parent,
        group=f"adaptd-{job.store.stem}",
        topics=Topics(job.topic, f"{job.topic}-feedback"),
    )
    service = IngestService(settings, sink=store, halts=HaltStore(database), key=b"bench")
    running = asyncio.create_task(service.run())
    while not (progress.is_done() or running.done()):  # noqa: ASYNC110 - a thread counts
        await asyncio.sleep(_POLL_S)
    progress.answer()
    running.cancel()
    await asyncio.wait([running], timeout=20)
    database.close()


if __name__ == "__main__":
    asyncio.run(main(read_job()))
    os._exit(0)  # Faust's client thread may take its time
