"""The other end of an ingest child: starts it, hurts it, and hears how far it is."""

import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tests.chaos.ingest_child import ChildSettings, Progress
from tests.support.broker import ROOT
from tests.support.waiting import until_blocking

_END_S = 45


class IngestChild:
    """One store's ingestion, over any number of starts and kills."""

    def __init__(self, settings: ChildSettings, *, within: Sequence[str] = ()) -> None:
        """`within`: a command that runs another one, the child, in surroundings of its own."""
        self.settings = settings
        self.within = within
        self.home = Path(settings.home)
        self.home.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.progress: Progress | None = None
        self.peak_rss_mb = 0.0
        self.longest_pause_s = 0.0
        self._listener: threading.Thread | None = None
        self._started_s = self._moved_s = 0.0
        self._first: Progress | None = None
        self._recovered_s: float | None = None

    @property
    def store_path(self) -> Path:
        return self.home / "store.duckdb"

    @property
    def log_path(self) -> Path:
        return self.home / "child.log"

    def start(self, **changes: object) -> None:
        """Start it, with other settings for this time."""
        settings = self.home.with_suffix(".json")  # not in a home that only the child sees
        settings.write_bytes(msgspec.json.encode(msgspec.structs.replace(self.settings, **changes)))
        self.progress = self._first = self._recovered_s = None
        self.longest_pause_s = 0.0
        self._started_s = self._moved_s = time.monotonic()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.within, sys.executable, "-m", "tests.chaos.ingest_child", str(settings)],
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
            )
        self._listener = threading.Thread(target=self._listen, args=(self.process,))
        self._listener.start()

    @property
    def stored(self) -> int:
        """Events accounted for: rows, dead letters and duplicates."""
        return self.progress.stored if self.progress else 0

    @property
    def running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, "it was never started"
        return self.process

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def recovered_s(self, *, within_s: float = 60) -> float:
        """Wait until it stores something new, and say how long after its start that was."""
        return until_blocking(self._recovery, within_s=within_s, every_s=0.02)

    def reaches(self, ends: Mapping[str, int], *, within_s: float = 120) -> None:
        """Wait until every partition is stored up to its end."""

        def reached() -> bool:
            assert self.is_alive, f"it ended with {self.running.returncode}: {self.last_words()}"
            found = self.progress.next_offsets if self.progress else {}
            return all(found.get(at, 0) >= end for at, end in ends.items())

        until_blocking(reached, within_s=within_s)

    def says(self, state: str, *, within_s: float = 60) -> str:
        """Wait for a state, and return the problem it gives."""
        until_blocking(
            lambda: self.progress is not None and self.progress.state == state, within_s=within_s
        )
        return (self.progress.problem if self.progress else None) or ""

    def signal(self, number: int) -> None:
        self.running.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, as a crash or the kernel would. Safe to repeat."""
        if self.process is not None:
            self.process.kill()
            self.ends()

    def stop(self) -> None:
        """Ask it to end; it does so cleanly."""
        self.signal(signal.SIGTERM)
        assert self.ends() == 0, self.last_words()

    def ends(self, *, within_s: float = _END_S) -> int:
        """Wait until it has ended and say how. Negative: by that signal."""
        code = self.running.wait(within_s)
        if self._listener is not None:
            self._listener.join(timeout=10)
        return code

    def limit_files(self, size_bytes: int | None) -> None:
        """From now on no file of it may grow beyond this, as if the disk were full; None: free."""
        most = resource.RLIM_INFINITY if size_bytes is None else size_bytes
        limits = (most, resource.RLIM_INFINITY)
        resource.prlimit(self.running.pid, resource.RLIMIT_FSIZE, limits)

    def file_bytes(self) -> int:
        """The largest file of the store."""
        return max(path.stat().st_size for path in self.home.glob("store.duckdb*"))

    def last_words(self) -> str:
        return self.log_path.read_text(errors="replace")[-1_500:]

    def _recovery(self) -> float | None:
        assert self.is_alive or self._recovered_s, self.last_words()
        return self._recovered_s

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        decode = msgspec.json.Decoder(Progress).decode
        with process.stdout as lines:
            for line in lines:
                if line.startswith(b"{") and line.endswith(b"}\n"):  # the last may be cut
                    self._hear(decode(line))

    def _hear(self, said: Progress) -> None:
        now_s = time.monotonic()
        if self._first is None:
            self._first = said
        if self.progress is None or said.stored > self.progress.stored:
            self.longest_pause_s = max(self.longest_pause_s, now_s - self._moved_s)
            self._moved_s = now_s
        if self._recovered_s is None and said.stored > self._first.stored:
            self._recovered_s = now_s - self._started_s
        self.peak_rss_mb = max(self.peak_rss_mb, said.peak_rss_mb)
        self.progress = said
