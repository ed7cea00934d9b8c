"""The ingest part of the daemon alone, as a process to be killed: quicker to start than all of it.

`python -m tests.chaos.ingest_child SETTINGS.json` opens the store, runs the daemon's own
IngestService under the daemon's own Supervisor, ends with 70 where it halts, and prints a JSON line
of how far it is many times a second. Wrapped are only the places where it is made to fail.
"""

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from adaptd.consumers.kafka.faust_app import ChunkConsumer, ChunkTransport
from adaptd.consumers.kafka.service import IngestService
from adaptd.consumers.kafka.topic_admin import Topics
from adaptd.daemon.domain.ingest import KAFKA
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.ingest.event_reads import EventReads
from adaptd.daemon.store.ingest.halts import HaltStore
from adaptd.daemon.system.logs import set_up_logs
from adaptd.daemon.system.supervision import Supervisor, stop_signals
from adaptd.daemon.wire.errors import AdaptdError, HaltError
from bench.machine import peak_mb
from tests.chaos.failpoints import Failpoints, How, WatchedSink, WatchedThread, watch
from tests.support.kafka_settings import ingest_settings
from tests.support.waiting import until

KEY = b"chaos key"
HALTED = 70
_REFUSED = 1
_TELL_EVERY_S = 0.05


class ChildSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`fail`: (place, how, after how many passes). `clock_ahead_s` moves the sink's clock.

    `resync`: accept the gap that it is halted on, as `adaptd ingest resync` does.
    """

    home: str
    bootstrap: str
    topics: Topics
    group: str
    session_timeout_s: float = 6
    window_s: float = 24 * 3600
    clock_ahead_s: float = 0
    fail: list[tuple[str, How, int]] = []
    resync: bool = False


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """`stored` counts every event accounted for: rows, dead letters and duplicates.

    `next_offsets` by "topic/partition". `left`: places that are still to fail.
    """

    state: str
    problem: str | None
    stored: int
    next_offsets: dict[str, int]
    left: int
    peak_rss_mb: float


class _Consumer(ChunkConsumer):
    def _new_consumer_thread(self) -> WatchedThread:
        return WatchedThread(self, loop=self.loop, beacon=self.beacon)


class _Child:
    def __init__(self, settings: ChildSettings, database: Database) -> None:
        self._resync = settings.resync
        self._failpoints = Failpoints()
        for place, how, after in settings.fail:
            self._failpoints.arm(place, how, after=after)
        WatchedThread.failpoints = self._failpoints
        ahead = timedelta(seconds=settings.clock_ahead_s)
        self._sink = WatchedSink(
            watch(database, self._failpoints),
            self._failpoints,
            dedupe_window=timedelta(seconds=settings.window_s),
            clock=lambda: datetime.now(UTC) + ahead,
        )
        self._reads = EventReads(database)
        self._service = IngestService(
            ingest_settings(
                settings.bootstrap,
                Path(settings.home),
                group=settings.group,
                topics=settings.topics,
                session_timeout_s=settings.session_timeout_s,
            ),
            sink=self._sink,
            halts=HaltStore(database),
            key=KEY,
        )

    async def run(self) -> None:
        """Until SIGTERM, or until it halts."""
        stop = asyncio.Event()
        with stop_signals(stop):
            async with asyncio.TaskGroup() as group:
                keep = Supervisor().keep_running("consumer", self._service.run)
                tasks = [group.create_task(keep), group.create_task(self._tell())]
                if self._resync:
                    await until(self._is_halted, within_s=30)
                    await self._service.resync(actor="chaos", reason="the fault made this gap")
                await stop.wait()
                for task in tasks:
                    task.cancel()

    async def _is_halted(self) -> bool:
        return (await self._service.status()).state == "halted"

    async def _tell(self) -> None:
        while True:
            sys.stdout.buffer.write(msgspec.json.encode(await self._progress()) + b"\n")
            sys.stdout.buffer.flush()
            await asyncio.sleep(_TELL_EVERY_S)

    async def _progress(self) -> Progress:
        status, counts = await self._service.status(), await self._reads.counts()
        offsets = await self._sink.offsets(KAFKA)
        return Progress(
            state=status.state,
            problem=status.problem,
            stored=counts.interactions + counts.feedback + counts.dead_letters + counts.duplicates,
            next_offsets={f"{at.topic}/{at.number}": o.next_offset for at, o in offsets.items()},
            left=len(self._failpoints.armed),
            peak_rss_mb=peak_mb(os.getpid()),
        )


async def _serve(settings: ChildSettings) -> None:
    database = Database.open(Path(settings.home) / "store.duckdb")
    try:
        await _Child(settings, database).run()
    finally:
        database.close()


def _end(error: AdaptdError, code: int) -> None:
    sys.stderr.write(f"{error}\n")
    sys.stderr.flush()
    os._exit(code)  # as the daemon does: a client thread may never end


def main(arguments: list[str]) -> None:
    settings = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=ChildSettings)
    set_up_logs(as_json=True)
    ChunkTransport.Consumer = _Consumer
    try:
        asyncio.run(_serve(settings))
    except* HaltError as halted:
        error: Any = halted.exceptions[0]
        _end(error, HALTED)
    except* AdaptdError as refused:
        error = refused.exceptions[0]
        _end(error, _REFUSED)


if __name__ == "__main__":
    main(sys.argv[1:])
