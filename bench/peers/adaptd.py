"""adaptd's consumer over its event store, put together as the daemon does."""

import asyncio
import os
from datetime import timedelta

from adaptd.consumers.kafka.service import IngestService, IngestSettings
from adaptd.consumers.kafka.topic_admin import Topics
from adaptd.daemon.domain.ingest import Decoded, Written
from adaptd.daemon.settings import Settings
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.ingest.sink import EventStore
from adaptd.daemon.store.stores import open_stores
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
    window = timedelta(days=1)
    stores = open_stores(
        database, examples_folder=job.store.parent, erasure_secret="", dedupe_window=window
    )
    store = _WatchedStore(database, dedupe_window=window)
    store.progress = progress = Progress(job)
    defaults = Settings.model_construct()
    settings = IngestSettings(
        bootstrap=job.bootstrap,
        security=defaults.kafka_security,
        directory=job.store.parent,
        group=f"adaptd-{job.store.stem}",
        topics=Topics(job.topic, f"{job.topic}-feedback"),
        create_topics=defaults.kafka_create_topics,
        partitions=defaults.kafka_partitions,
        session_timeout_s=defaults.kafka_session_timeout_s,
        unsigned_sources=frozenset(defaults.kafka_unsigned_sources),
        dedupe_window_s=defaults.dedupe_window_s,
    )
    service = IngestService(settings, sink=store, halts=stores.halts, key=b"bench")
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
