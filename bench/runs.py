"""One measurement: a peer in a process of its own, over a topic and a store of its own."""

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

import duckdb
import msgspec
import numpy as np

from bench.job import Answer, Commit, Job
from bench.topics import PARTITIONS, append_times, make_topics, pace

PEERS = {
    "adaptd": "adaptd",
    "faust_stock": "faust_stock",
    "aiokafka": "aiokafka_loop",
    "quixstreams": "quix",
    "confluent": "confluent_loop",
}
_GRACE_S = 40  # for imports, joining the group and the last transaction


class FailedError(Exception):
    """A peer did not answer."""


class Latency(msgspec.Struct, frozen=True):
    """From the broker's append to the end of the commit, in milliseconds."""

    p50_ms: float
    p99_ms: float
    events: int


def start(peer: str, job: Job) -> subprocess.Popen[bytes]:
    log = job.store.with_suffix(".log").open("wb")
    command = [sys.executable, "-m", f"bench.peers.{PEERS[peer]}"]
    return subprocess.Popen(
        [*command, msgspec.json.encode(job).decode()], stdout=subprocess.PIPE, stderr=log
    )


def finish(child: subprocess.Popen[bytes], job: Job) -> Answer:
    """Raises FailedError where it ends without an answer."""
    try:
        told, _ = child.communicate(timeout=job.limit_s + _GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        told, _ = child.communicate()
    for line in told.splitlines():
        if line.startswith(b'{"commits"'):
            return msgspec.json.decode(line, type=Answer)
    raise FailedError(f"no answer; its words are in {job.store.with_suffix('.log')}")


def drain(peer: str, job: Job) -> Answer:
    """Let a peer read what is there."""
    return finish(start(peer, job), job)


def follow(
    peer: str,
    job: Job,
    warm_up: Sequence[bytes],
    events: Sequence[bytes],
    *,
    partitions: int = PARTITIONS,
) -> Latency:
    """Append `events` at 2,000 a second once the peer has stored `warm_up`, and time each."""
    over = {"partitions": partitions}
    make_topics(job.bootstrap, [job.topic, f"{job.topic}-feedback"], **over)
    pace(job.bootstrap, job.topic, list(warm_up), per_s=10_000, **over)
    child = start(peer, job)
    assert child.stdout is not None
    child.stdout.readline()  # `ready`: it has stored the first rows
    producer = threading.Thread(
        target=pace, args=(job.bootstrap, job.topic, list(events)), kwargs={"per_s": 2_000} | over
    )
    producer.start()
    answer = finish(child, job)
    producer.join()
    appended_at = append_times(job.bootstrap, job.topic, job.events, **over)
    return _latency(job, answer.commits, appended_at, len(warm_up))


def _latency(
    job: Job, commits: Sequence[Commit], appended_at: Mapping[str, float], warm_up: int
) -> Latency:
    """Rows of one transaction share `ingested_at`, so the n-th of these is the n-th commit's."""
    with duckdb.connect(str(job.store)) as store:
        rows = store.execute("SELECT id, epoch_us(ingested_at) FROM interactions").fetchall()
    stamps = sorted({stamp for _, stamp in rows})
    if len(stamps) != len(commits):
        raise FailedError(f"{len(stamps)} transactions in the store, {len(commits)} told of")
    committed_at = dict(zip(stamps, sorted(commit.at_s for commit in commits), strict=True))
    measured = sorted(appended_at, key=appended_at.__getitem__)[warm_up:]
    stamp_of = dict(rows)
    took_s = [committed_at[stamp_of[event]] - appended_at[event] for event in measured]
    p50_ms, p99_ms = (np.percentile(took_s, [50, 99]) * 1000).round(1).tolist()
    return Latency(p50_ms=p50_ms, p99_ms=p99_ms, events=len(took_s))
