"""Places between a chunk's arrival and Kafka's advisory commit where ingestion is made to fail.

Nothing of it is in the product: the store's write cursor, the sink and the consumer's thread are
wrapped, here and in the ingest child. Places are named by what was just done. Those inside the
transaction are found by watching one, so a new statement is a new place by itself.
"""

import os
import signal
from collections.abc import Mapping
from datetime import timedelta
from importlib import resources
from typing import Any, Literal

import duckdb

from adaptd.consumers.kafka.fetch_thread import FetchThread
from adaptd.daemon.domain.ingest import Decoded, Partition, Written
from adaptd.daemon.store.database.database import Connection, Database
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.ingest.sink import EventStore
from adaptd.daemon.wire.errors import StoreFullError
from tests.support.event_samples import a_rating, an_interaction
from tests.support.ingesting import Ingesting, chunk

BEFORE_BEGIN = "before begin"
AFTER_BEGIN = "after begin"
BEFORE_COMMIT = "before commit"
AFTER_COMMIT = "after commit"
BEFORE_ANSWER = "before answer"
BEFORE_TELLING = "before advisory commit"
AFTER_TELLING = "after advisory commit"
_FILES = [
    file.name.removesuffix(".sql")
    for file in (resources.files("adaptd.daemon.store") / "sql").iterdir()
]
_NAMES = {sql: name for file in _FILES for name, sql in statements(file).items()}
_OF_A_CHUNK = "advance_offsets"  # the statement that only the transaction of a chunk runs

How = Literal["kill", "raise"]


class Failpoints:
    """What happens at which place. `passed` lists the places in the order they were first met."""

    def __init__(self) -> None:
        self.passed: dict[str, int] = {}
        self._armed: dict[str, tuple[int, How]] = {}

    def arm(self, place: str, how: How, *, after: int = 0) -> None:
        """Fail at `place` once, when it has been passed `after` times more."""
        self._armed[place] = (self.passed.get(place, 0) + after, how)

    @property
    def armed(self) -> frozenset[str]:
        return frozenset(self._armed)

    def disarm(self) -> None:
        self._armed.clear()

    def trips(self, place: str) -> bool:
        """Whether to raise here. Where the process is to be killed it does not return."""
        count = self.passed.get(place, 0)
        self.passed[place] = count + 1
        due, how = self._armed.get(place, (None, None))
        if due is None or count < due:
            return False
        del self._armed[place]
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    def check(self, place: str) -> None:
        if self.trips(place):
            raise duckdb.IOException(f"No space left on device: made to fail {place}")


class WatchedCursor:
    """The store's write cursor. A begin or commit that fails leaves no transaction open."""

    def __init__(self, cursor: Connection, failpoints: Failpoints) -> None:
        self._cursor = cursor
        self._failpoints = failpoints
        self._of_a_chunk = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def begin(self) -> None:
        self._cursor.begin()
        self._of_a_chunk = False
        self._fail_rolled_back(AFTER_BEGIN)

    def execute(self, statement: str, *values: Any) -> Any:
        result = self._cursor.execute(statement, *values)
        name = _NAMES.get(statement, "a statement")
        self._of_a_chunk |= name == _OF_A_CHUNK
        self._failpoints.check(f"after {name}")
        return result

    def commit(self) -> None:
        if self._of_a_chunk:
            self._fail_rolled_back(BEFORE_COMMIT)
        self._cursor.commit()
        if self._of_a_chunk:
            self._failpoints.check(AFTER_COMMIT)

    def _fail_rolled_back(self, place: str) -> None:
        try:
            self._failpoints.check(place)
        except duckdb.Error:
            self._cursor.rollback()
            raise


class WatchedSink(EventStore):
    """The sink, failing before its transaction, or after it but before it can say so."""

    def __init__(self, database: Database, failpoints: Failpoints, **options: Any) -> None:
        super().__init__(database, **options)
        self._failpoints = failpoints

    async def write(self, decoded: Decoded) -> Written:
        self._fail(BEFORE_BEGIN)
        written = await super().write(decoded)
        self._fail(BEFORE_ANSWER)
        return written

    def _fail(self, place: str) -> None:
        if self._failpoints.trips(place):
            raise StoreFullError("store", f"made to fail {place}", "Try again")


class WatchedThread(FetchThread):
    """The consumer's thread, failing around Kafka's advisory commit."""

    failpoints = Failpoints()

    async def commit_advisory(self, offsets: Mapping[Partition, int]) -> bool:
        if self.failpoints.trips(BEFORE_TELLING):
            return False  # to raise here is to be told no
        told = await super().commit_advisory(offsets)
        return told and not self.failpoints.trips(AFTER_TELLING)


def watch(database: Database, failpoints: Failpoints) -> Database:
    """From now on the database writes through a watched cursor."""
    database._write_cursor = WatchedCursor(database._write_cursor, failpoints)  # pyright: ignore[reportAttributeAccessIssue] - it does what a cursor does
    return database


async def places() -> dict[str, bool]:
    """Every place, in order, and whether each chunk passes it or only the first of a process.

    Those of the transaction are what chunks of everything pass.
    """
    failpoints = Failpoints()
    database = watch(Database.open(":memory:"), failpoints)
    try:
        await Ingesting(database).pin()
        failpoints.passed.clear()
        sink = WatchedSink(database, failpoints, dedupe_window=timedelta(days=1))
        for start in (0, 3):
            await sink.write(chunk([an_interaction(), a_rating("i"), b"broken"], start=start))
    finally:
        database.close()
    inside = {place: times > 1 for place, times in failpoints.passed.items()}
    return inside | {BEFORE_TELLING: True, AFTER_TELLING: True}
