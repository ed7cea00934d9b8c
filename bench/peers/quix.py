"""Quix Streams with a batching sink, which it calls at every checkpoint."""

from quixstreams import Application
from quixstreams.sinks import BatchingSink, SinkBatch

from bench.job import Job, Progress, read_job
from bench.peers.sink import BATCH, GATHER_S, ArrowSink


class _DuckSink(BatchingSink):
    """One transaction a partition and checkpoint."""

    def __init__(self, sink: ArrowSink) -> None:
        super().__init__()
        self._sink = sink

    def write(self, batch: SinkBatch) -> None:
        self._sink.write([(item.value, batch.partition, item.offset) for item in batch])


def main(job: Job) -> None:
    progress = Progress(job)
    sink = ArrowSink(job, progress)
    app = Application(
        broker_address=job.bootstrap,
        consumer_group=f"quix-{job.store.stem}",
        auto_offset_reset="earliest",
        auto_create_topics=False,
        commit_interval=GATHER_S if job.paced else 1.0,
        commit_every=BATCH,
    )
    frame = app.dataframe(app.topic(job.topic, value_deserializer="bytes"))
    frame.sink(_DuckSink(sink))
    app.run(count=job.events, timeout=job.limit_s)
    progress.answer()
    sink.close()


if __name__ == "__main__":
    main(read_job())
