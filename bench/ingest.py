"""`make bench-ingest`: one run, one table, bench/results/ingest.json. At most 10 minutes.

All peers read the same topic (400-byte events, 3 partitions, there before they start) into the same
schema with the same decoding, each in a process and a store of its own.

- `events_per_s`: from a peer's first commit to its last, without the first one's rows. adaptd,
  aiokafka and confluent-kafka are run three times in turn: the median, and `events_per_s_runs`.
- `cpu_s_per_million`: user and system time of the process, from the start of reading.
- `peak_rss_mb`: of the process.
- `commit_p50_ms`, `commit_p99_ms`: from the broker's append (its own time stamp) to the end of the
  commit, with 2,000 events a second appended one by one. HTTP: of a request of 100 events.
- `partitions_64`: adaptd's delay where these events are spread over 64 partitions.
- `full_table`: adaptd with 20 M rows of the last day in the table; `ratio` to the empty one.
- `packed`: adaptd on batch messages of 50 of the same events, in turn with the single ones; `ratio`
  to these.
"""

import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from adaptd.daemon.demo.broker import KafkaNode
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.database.opening import open_store
from bench import http_door
from bench.events import EVENT_BYTES, make_events, pack
from bench.job import Answer, Job
from bench.machine import machine
from bench.runs import PEERS, drain, follow
from bench.topics import PARTITIONS, fill, make_topics

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results" / "ingest.json"
_SCRATCH = ROOT / "var" / "bench"
_EVENTS = 600_000
_PACKED_IN = 50
_FULL_ROWS = 20_000_000
_RUNS = 3
_REPEATED = ("adaptd", "aiokafka", "confluent")
_SLOW_LIMIT_S = 12.0  # enough of the peers that are far behind
_PACED_EVENTS = 20_000
_WARM_UP = 300
_HTTP_EVENTS = 300_000
_HTTP_BODY = 100


class Bench:
    """The broker, the scratch folder and what has been found so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = KafkaNode(folder / "kafka", jars=ROOT / "var" / "kafka" / "jars")
        self.found: dict[str, dict[str, Any]] = {}
        self._began_s = time.monotonic()
        self._stores = 0

    def say(self, text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - self._began_s:5.0f} s  {text}\n")
        sys.stderr.flush()

    def job(self, topic: str, events: int, *, limit_s: float = 60, paced: bool = False) -> Job:
        self._stores += 1
        folder = self.folder / f"store-{self._stores}"
        folder.mkdir()
        return Job(
            bootstrap=self.broker.bootstrap,
            topic=topic,
            store_path=str(folder / f"s{self._stores}.duckdb"),
            events=events,
            limit_s=limit_s,
            paced=paced,
        )

    def drain(self, peer: str, job: Job) -> Answer:
        answer = drain(peer, job)
        self.say(f"{peer}: {answer.events_per_s:,.0f} events/s ({answer.rows:,} rows)")
        shutil.rmtree(job.store.parent)
        return answer


def rates(bench: Bench) -> None:
    """Everybody on the same topic, the fast ones several times in turn, and adaptd on batches."""
    answers: dict[str, list[Answer]] = {peer: [] for peer in PEERS}
    packed: list[Answer] = []
    for turn in range(_RUNS):
        for peer in PEERS:
            if turn == 0 or peer in _REPEATED:
                limit_s = 60.0 if peer in _REPEATED else _SLOW_LIMIT_S
                job = bench.job("events", _EVENTS, limit_s=limit_s)
                answers[peer].append(bench.drain(peer, job))
        packed.append(bench.drain("adaptd", bench.job("packed", _EVENTS)))
    for peer, runs in answers.items():
        bench.found[peer] = _figures(runs)
    bench.found["packed"] = _figures(packed, to=bench.found["adaptd"])


def latencies(bench: Bench) -> None:
    for peer in PEERS:
        bench.found[peer] |= _follow(bench, peer, f"paced-{peer}")
    bench.found["partitions_64"] = _follow(bench, "adaptd", "paced-64", partitions=64)


def _follow(
    bench: Bench, peer: str, topic: str, *, partitions: int = PARTITIONS
) -> dict[str, float]:
    job = bench.job(topic, _WARM_UP + _PACED_EVENTS, limit_s=40, paced=True)
    began_ms = int(time.time() * 1000)
    events = list(make_events(job.events, began_ms=began_ms, seed=7))
    found = follow(peer, job, events[:_WARM_UP], events[_WARM_UP:], partitions=partitions)
    bench.say(f"{topic}: append to commit p50 {found.p50_ms} ms, p99 {found.p99_ms} ms")
    shutil.rmtree(job.store.parent)
    return {"commit_p50_ms": found.p50_ms, "commit_p99_ms": found.p99_ms}


def full_table(bench: Bench) -> None:
    job = bench.job("events", _EVENTS)
    bench.say(f"filling a table with {_FULL_ROWS:,} rows")
    Database.open(job.store).close()
    statement = (Path(__file__).parent / "full_table.sql").read_text()
    with open_store(job.store, memory_limit="2GB") as store:
        now_ms = int(time.time() * 1000) - 1000
        store.execute(statement, {"rows": _FULL_ROWS, "now_ms": now_ms})
    bench.say(f"its file has {job.store.stat().st_size / 2**30:.1f} GiB")
    answer = bench.drain("adaptd", job)
    bench.found["full_table"] = _figures([answer], to=bench.found["adaptd"])


def http_ndjson(bench: Bench) -> None:
    began_ms = int(time.time() * 1000)
    bodies = [
        b"\n".join([*part, b""])
        for part in _parts(make_events(_HTTP_EVENTS, began_ms=began_ms, seed=3), _HTTP_BODY)
    ]
    home = bench.folder / "http"
    home.mkdir()
    python = ROOT / ".venv" / "bin" / "python"
    answer = http_door.measure(home, bodies, events=_HTTP_EVENTS, python=python)
    bench.say(f"http: {answer.events_per_s:,.0f} events/s")
    bench.found["http_ndjson"] = {
        name: round(getattr(answer, name), 1) for name in answer.__struct_fields__
    }


def _figures(runs: list[Answer], *, to: dict[str, Any] | None = None) -> dict[str, Any]:
    rate = statistics.median(run.events_per_s for run in runs)
    found: dict[str, Any] = {
        "events_per_s": round(rate),
        "cpu_s_per_million": round(statistics.median(run.cpu_s_per_million for run in runs), 1),
        "peak_rss_mb": round(max(run.peak_rss_mb for run in runs)),
        "events_per_s_runs": [round(run.events_per_s) for run in runs],
    }
    if to is not None:
        found["ratio"] = round(rate / to["events_per_s"], 2)
    return found


def _parts(events: Iterator[bytes], size: int) -> Iterator[list[bytes]]:
    while part := list(islice(events, size)):
        yield part


def _print_table(found: dict[str, dict[str, Any]]) -> None:
    columns = [
        ("events_per_s", "events/s"),
        ("cpu_s_per_million", "CPU s/M"),
        ("peak_rss_mb", "peak MB"),
        ("commit_p50_ms", "p50 ms"),
        ("commit_p99_ms", "p99 ms"),
        ("ratio", "ratio"),
    ]
    sys.stdout.write("".join([f"{'':14}", *(f"{title:>11}" for _, title in columns)]) + "\n")
    for name, figures in found.items():
        cells = [
            f"{figures.get(key, ''):>11,}" if key in figures else " " * 11 for key, _ in columns
        ]
        sys.stdout.write(f"{name:14}{''.join(cells)}\n")


def main() -> None:
    shutil.rmtree(_SCRATCH, ignore_errors=True)
    _SCRATCH.mkdir(parents=True)
    bench = Bench(_SCRATCH)
    began_s = time.monotonic()
    bench.say("starting a broker")
    bench.broker.start()
    try:
        _fill_topics(bench)
        steps: list[Callable[[Bench], None]] = [rates, latencies, http_ndjson, full_table]
        for step in steps:
            step(bench)
    finally:
        bench.broker.kill()
        shutil.rmtree(_SCRATCH, ignore_errors=True)
    adaptd, stock = bench.found["adaptd"], bench.found["faust_stock"]
    adaptd["times_faust_stock"] = round(adaptd["events_per_s"] / stock["events_per_s"], 1)
    about = {"machine": machine(), "event_bytes": EVENT_BYTES, "events": _EVENTS}
    about |= {"took_s": round(time.monotonic() - began_s), "measured_at": _today()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(bench.found | {"about": about}, indent=2) + "\n")
    _print_table(bench.found)


def _fill_topics(bench: Bench) -> None:
    bench.say(f"appending {_EVENTS:,} events, singly and {_PACKED_IN} to a message")
    address = bench.broker.bootstrap
    names = ["events", "packed"]
    make_topics(address, [*names, *(f"{name}-feedback" for name in names)])
    began_ms = int(time.time() * 1000)
    events = list(make_events(_EVENTS, began_ms=began_ms))
    fill(address, "events", events)
    fill(address, "packed", pack(iter(events), _PACKED_IN))


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


if __name__ == "__main__":
    main()
