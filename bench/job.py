"""What a peer is asked to do, and what it answers: one JSON line."""

import resource
import sys
import time
from pathlib import Path

import msgspec

from bench.machine import peak_mb


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Read `topic` into the store until it has `events` rows more, or for `limit_s`.

    `paced`: the events come slowly and latency counts; otherwise they are all there and rate does.
    """

    bootstrap: str
    topic: str
    store_path: str
    events: int
    limit_s: float
    paced: bool = False

    @property
    def store(self) -> Path:
        return Path(self.store_path)


class Commit(msgspec.Struct, frozen=True):
    """A transaction: when it had been committed (Unix time), and its new rows."""

    at_s: float
    rows: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """`cpu_s`: user and system time of the whole process from the start of reading."""

    commits: list[Commit]
    cpu_s: float
    peak_rss_mb: float

    @property
    def rows(self) -> int:
        return sum(commit.rows for commit in self.commits)

    @property
    def events_per_s(self) -> float:
        """From the first commit to the last, without the first one's rows: no start-up in it."""
        took_s = self.commits[-1].at_s - self.commits[0].at_s
        return (self.rows - self.commits[0].rows) / took_s

    @property
    def cpu_s_per_million(self) -> float:
        return self.cpu_s / self.rows * 1e6


class Progress:
    """Counts commits, and says when enough is done."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._commits: list[Commit] = []
        self._rows = 0
        self._began_s = time.monotonic()
        self._cpu_s = _cpu_s()

    def committed(self, rows: int) -> None:
        """Call right after the commit."""
        at_s = time.time()
        if not self._commits:
            _tell(b"ready")
        self._commits.append(Commit(at_s, rows))
        self._rows += rows

    def is_done(self) -> bool:
        late = time.monotonic() - self._began_s > self._job.limit_s
        return late or self._rows >= self._job.events

    def answer(self) -> None:
        """Print what was measured."""
        cpu_s = _cpu_s() - self._cpu_s
        commits = [commit for commit in self._commits if commit.rows]
        found = Answer(commits=commits, cpu_s=cpu_s, peak_rss_mb=peak_mb("self"))
        _tell(msgspec.json.encode(found))


def read_job() -> Job:
    return msgspec.json.decode(sys.argv[1], type=Job)


def _tell(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.flush()


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
