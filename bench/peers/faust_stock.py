"""A stock Faust agent with `take`, as its documentation shows it."""

import asyncio
import os

import faust
from faust.contrib.asgi import bind_to_running_loop

from bench.job import Job, Progress, read_job
from bench.peers.sink import GATHER_S, ArrowSink

_TAKE = 5_000
_POLL_S = 0.05


async def main(job: Job) -> None:
    progress = Progress(job)
    sink = ArrowSink(job, progress)
    app = faust.App(
        f"faust-{job.store.stem}",
        broker=f"kafka://{job.bootstrap}",
        datadir=job.store.parent / "faust-stock",
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
        topic_disable_leader=True,
    )
    seen = 0

    @app.agent(app.topic(job.topic, value_serializer="raw"))
    async def ingest(stream: faust.Stream) -> None:
        nonlocal seen
        async for values in stream.take(_TAKE, within=GATHER_S):
            await asyncio.to_thread(
                sink.write, [(value, 0, seen + index) for index, value in enumerate(values)]
            )
            seen += len(values)

    bind_to_running_loop(app)
    app.finalize()
    await app.maybe_start()
    while not progress.is_done():  # noqa: ASYNC110 - a thread counts
        await asyncio.sleep(_POLL_S)
    progress.answer()
    os._exit(0)  # it would first wait for every message it has buffered


if __name__ == "__main__":
    asyncio.run(main(read_job()))
