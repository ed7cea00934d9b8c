"""A plain aiokafka loop: many records at once, decoded and inserted in a thread."""

import asyncio

from aiokafka import AIOKafkaConsumer

from bench.job import Job, Progress, read_job
from bench.peers.sink import BATCH, GATHER_S, ArrowSink


async def main(job: Job) -> None:
    progress = Progress(job)
    sink = ArrowSink(job, progress)
    consumer = AIOKafkaConsumer(
        job.topic,
        bootstrap_servers=job.bootstrap,
        group_id=f"aiokafka-{job.store.stem}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    while not progress.is_done():
        found = await consumer.getmany(timeout_ms=int(GATHER_S * 1000), max_records=BATCH)
        values = [(r.value, r.partition, r.offset) for part in found.values() for r in part]
        if values:
            await asyncio.to_thread(sink.write, values)
            await consumer.commit()
    progress.answer()
    await consumer.stop()
    sink.close()


if __name__ == "__main__":
    asyncio.run(main(read_job()))
