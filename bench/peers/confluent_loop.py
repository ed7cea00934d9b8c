"""A plain confluent-kafka loop: `consume` many, insert, commit."""

from confluent_kafka import Consumer

from bench.job import Job, Progress, read_job
from bench.peers.sink import BATCH, GATHER_S, ArrowSink


def main(job: Job) -> None:
    progress = Progress(job)
    sink = ArrowSink(job, progress)
    consumer = Consumer(
        {
            "bootstrap.servers": job.bootstrap,
            "group.id": f"confluent-{job.store.stem}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([job.topic])
    while not progress.is_done():
        found = consumer.consume(BATCH, timeout=GATHER_S)
        values = [(m.value(), m.partition(), m.offset()) for m in found if m.error() is None]
        if values:
            sink.write(values)
            consumer.commit(asynchronous=True)
    progress.answer()
    consumer.close()
    sink.close()


if __name__ == "__main__":
    main(read_job())
