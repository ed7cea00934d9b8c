"""What the peers share, so that only the way from the broker differs: our decoding, our schema.

None of them drops duplicates or keeps offsets with the rows, as adaptd does.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

from adaptd.consumers.decoding.decode import Record, Sender, decode
from adaptd.daemon.store.database.database import Connection, Database
from bench.job import Job, Progress

BATCH = 20_000  # rows of a transaction, as adaptd has them when it is behind
GATHER_S = 0.05
_UNSIGNED = Sender(trusted=False, principal=None, sources=frozenset({"user"}))
_INSERT = "INSERT INTO interactions BY NAME SELECT *, $now AS ingested_at FROM chunk"


class ArrowSink:
    """Inserts decoded records, one transaction a call."""

    def __init__(self, job: Job, progress: Progress) -> None:
        self._database = Database.open(job.store)
        self._topic = job.topic
        self._progress = progress

    def write(self, values: Iterable[tuple[bytes, int, int]]) -> None:
        """Values with their partition and offset."""
        records = [
            Record(value, self._topic, partition, offset, _UNSIGNED, "interaction")
            for value, partition, offset in values
        ]
        if records:
            found = decode(records, source="kafka", spans=[]).interactions
            self._database.write_now(lambda cursor: _insert(cursor, found))
            self._progress.committed(found.num_rows)

    def close(self) -> None:
        self._database.close()


def _insert(cursor: Connection, chunk: object) -> None:
    cursor.register("chunk", chunk)
    cursor.execute(_INSERT, {"now": datetime.now(UTC)})
    cursor.unregister("chunk")
