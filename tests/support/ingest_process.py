"""An ingest daemon as a process to be killed: `-m tests.support.ingest_process SETTINGS.json`.

Prints a JSON line with the store's counts several times a second. Ends with 70 where it halts.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from adaptd.consumers.kafka.service import IngestService
from adaptd.consumers.kafka.topic_admin import Topics
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.ingest.event_reads import EventReads
from adaptd.daemon.store.ingest.halts import HaltStore
from adaptd.daemon.store.ingest.sink import EventStore
from adaptd.daemon.wire.errors import HaltError
from tests.support.broker import ROOT
from tests.support.kafka_settings import ingest_settings
from tests.support.waiting import LIMIT_S

KEY = b"test key"


class IngestProcess:
    """Starts and kills it, and knows the last counts it printed."""

    def __init__(self, home: Path, *, bootstrap: str, topics: Topics) -> None:
        self.store_path = home / "store.duckdb"
        self._settings = home / "ingest.json"
        self._settings.write_text(
            json.dumps(
                {
                    "home": str(home),
                    "bootstrap": bootstrap,
                    "interactions": topics.interactions,
                    "feedback": topics.feedback,
                }
            )
        )
        self.counts: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.support.ingest_process", str(self._settings)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        self._listener = threading.Thread(target=self._listen, args=(self._process,))
        self._listener.start()

    def kill(self) -> None:
        """SIGKILL. Safe to repeat."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(timeout=LIMIT_S)
        if self._listener is not None:
            self._listener.join(timeout=LIMIT_S)

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                if line.startswith(b"{"):
                    self.counts = json.loads(line)


async def _ingest(settings: dict[str, str]) -> None:
    home = Path(settings["home"])
    database = Database.open(home / "store.duckdb")
    reads = EventReads(database)
    service = IngestService(
        ingest_settings(
            settings["bootstrap"],
            home,
            group=settings["interactions"],
            topics=Topics(settings["interactions"], settings["feedback"]),
            session_timeout_s=6,
        ),
        sink=EventStore(database, dedupe_window=timedelta(days=1)),
        halts=HaltStore(database),
        key=KEY,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(service.run())
        while True:
            counts = msgspec.json.encode(await reads.counts())
            print(counts.decode(), flush=True)  # noqa: T201 - it is what the test listens to
            await asyncio.sleep(0.1)


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    try:
        asyncio.run(_ingest(settings))
    except* HaltError as halted:
        sys.stderr.write(f"{halted.exceptions}\n")
        sys.stderr.flush()
        os._exit(70)


if __name__ == "__main__":
    main()
