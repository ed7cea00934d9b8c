"""Faults of the broker: killed, and without what was to be read next."""

import json
import signal
import time
from collections.abc import Mapping
from typing import Any

import duckdb
from aiokafka import AIOKafkaProducer

from tests.chaos.arena import Arena, Outcome, World
from tests.chaos.broker_log import drop_before, make_anew, read_log
from tests.chaos.child import IngestChild
from tests.chaos.ingest_child import HALTED
from tests.chaos.ledger import Place, Sent
from tests.chaos.load import Event, Message, answer, as_json
from tests.support.waiting import until_blocking

_HALT = "SELECT detail FROM halts WHERE cleared_at IS NULL"
_COMPACTED_S = 60
_FETCH_ENDS_S = 3  # what was asked for before the stop is answered empty by then


def sigkill_of_the_broker(world: World, *, times: int, starts: int) -> Outcome:
    """Under load, first while it starts; the daemon runs on and producers try again."""
    with world.arena("broker") as arena:
        child, worst_s, problems = arena.child(), 0.0, []
        with arena.load(per_s=300):
            for _ in range(starts):  # it has not joined its group yet, or is about to
                child.kill()
                child.start()
                time.sleep(arena.rng.uniform(0.5, 1.5))
                _bounce(arena)
                child.recovered_s(within_s=90)
            for _ in range(times):
                _bounce(arena)
                worst_s = max(worst_s, _next_commit_s(child))
        child.reaches(arena.ledger.ends())
        if not child.is_alive:
            problems.append("the daemon did not live through it")
        child.kill()
        return arena.judge(
            child.store_path,
            fault="SIGKILL of the broker",
            injected=starts + times,
            recover_s=worst_s,
            problems=problems,
        )


def _bounce(arena: Arena) -> None:
    arena.broker.kill()
    time.sleep(arena.rng.uniform(0, 2))
    arena.broker.restart()


def topic_made_anew(world: World, *, while_read: bool = False) -> Outcome:
    """Deleted and created under its name: it halts, names both, and goes on once told to."""
    fault = f"topic recreated, while it {'reads' if while_read else 'is down'}"
    with world.arena(f"anew-{while_read}".lower()) as arena:
        child = arena.child()
        child.start()
        arena.send(400)
        child.reaches(arena.ledger.ends())
        if not while_read:
            child.stop()
        topic, before = arena.topics.interactions, dict(_next_offsets(child))
        make_anew(arena.broker, topic, partitions=arena.partitions)
        arena.ledger.forget_ends(topic)
        arena.send(900 if while_read else 300, life=1)  # reading on by offset would be possible
        expected = {
            (topic, part, "recreated", before[f"{topic}/{part}"], None)
            for part in range(arena.partitions)
        }
        problems = halts_on(child, expected, started=while_read)
        recover_s = resynced(child, arena)
        return arena.judge(
            child.store_path,
            fault=fault,
            injected=1,
            recover_s=recover_s,
            problems=problems,
            note="halted; every partition's offset reported",
        )


def passed_by_retention(world: World, *, while_stopped: bool = False) -> Outcome:
    """Records are deleted before they were read: exactly those are reported, the rest is stored."""
    fault = "retention, while it is stopped" if while_stopped else "retention, while it is down"
    with world.arena(f"retention-{while_stopped}".lower()) as arena:
        child = arena.child(session_timeout_s=10)
        child.start()
        arena.send(300)
        child.reaches(arena.ledger.ends())
        if while_stopped:
            child.signal(signal.SIGSTOP)
            time.sleep(_FETCH_ENDS_S)
        else:
            child.stop()
        stored = arena.ledger.ends()
        arena.send(600)
        cut = cuts(arena, stored)
        drop_before(arena.broker, arena.topics.interactions, cut)
        gone, expected = cut_off(arena, stored, cut)
        if while_stopped:
            child.signal(signal.SIGCONT)
        problems = halts_on(child, expected, started=while_stopped)
        recover_s = resynced(child, arena)
        return arena.judge(
            child.store_path,
            fault=fault,
            injected=1,
            recover_s=recover_s,
            gone=gone,
            problems=problems,
            note=f"halted; {sum(gap[4] for gap in expected)} offsets reported gone, all of them",
        )


class Compacted:
    """A compacted topic: begun early, since the broker's cleaner takes its time."""

    def __init__(self, world: World) -> None:
        self.arena = world.arena(
            "compacted",
            partitions=1,
            cleanup_policy="compact",
            segment_ms="200",
            min_cleanable_dirty_ratio="0.01",
            max_compaction_lag_ms="1000",
            min_compaction_lag_ms="0",
            delete_retention_ms="100",
        )
        self._write()

    def _write(self) -> None:
        sender = self.arena.sender()
        for turn in range(600):
            message = self.arena.mix.interaction()
            sender.send(message, partition=0, key=b"%d" % (turn % 40))
            if turn % 150 == 149:
                sender.finish()
                time.sleep(0.3)  # the next record rolls the segment
        sender.send(
            Message(self.arena.topics.interactions, None, [Event(None, "refused", "no_value")]),
            partition=0,
            key=b"40",
        )
        sender.close()

    def run(self) -> Outcome:
        """Read what is left, over gaps and kills."""
        with self.arena as arena:
            until_blocking(self._has_gaps, within_s=_COMPACTED_S, every_s=1)
            child = arena.child()
            child.start(fail=[("before commit", "kill", 0)])
            problems = [] if child.ends() == -signal.SIGKILL else ["the failpoint was not met"]
            child.start()
            recover_s = child.recovered_s()
            child.reaches(arena.ledger.ends())
            child.kill()
            left = len(read_log(arena.broker.bootstrap, [arena.topics.interactions]).records)
            return arena.judge(
                child.store_path,
                fault="compacted topic",
                injected=1,
                recover_s=recover_s,
                compacted=True,
                problems=problems,
                note=f"{left} of 601 records left by the broker",
            )

    def _has_gaps(self) -> bool:
        left = read_log(self.arena.broker.bootstrap, [self.arena.topics.interactions])
        return len(left.records) < 600


async def aborted_transactions(world: World, *, times: int) -> Outcome:
    """A third of the transactions is aborted, and it is killed in between."""
    with world.arena("transactions", partitions=2) as arena:
        child = arena.child()
        producer = AIOKafkaProducer(
            bootstrap_servers=arena.broker.bootstrap, transactional_id=arena.name
        )
        await producer.start()
        try:
            child.start(fail=[("after commit", "kill", 0)])
            aborted = 0
            for turn in range(times):
                aborted += await _transaction(arena, producer, turn)
        finally:
            await producer.stop()
        problems = [] if child.ends() == -signal.SIGKILL else ["the failpoint was not met"]
        child.start()
        child.reaches(arena.ledger.ends())
        child.kill()
        return arena.judge(
            child.store_path,
            fault="aborted transactions",
            injected=aborted,
            recover_s=None,
            problems=problems,
        )


async def _transaction(arena: Arena, producer: Any, turn: int) -> bool:
    """Send one with several events; whether it was aborted."""
    await producer.begin_transaction()
    abort = arena.rng.random() < 1 / 3
    sent = []
    for index in range(5):
        name = f"{arena.name}-{turn}-{index}"
        where = await producer.send_and_wait(
            arena.topics.interactions, as_json(answer(name)), partition=index % 2
        )
        sent.append(
            Sent(
                topic=where.topic,
                partition=where.partition,
                offset=where.offset,
                id=name,
                producer=arena.name,
                sequence=5 * turn + index,
                fate="aborted" if abort else "event",
            )
        )
    await (producer.abort_transaction() if abort else producer.commit_transaction())
    arena.ledger.add(*sent)
    return abort


def _next_commit_s(child: IngestChild) -> float:
    """From now on, how long until something new is stored."""
    began_s, before = time.monotonic(), child.stored
    until_blocking(lambda: child.stored > before, within_s=90, every_s=0.02)
    return time.monotonic() - began_s


def cuts(arena: Arena, stored: Mapping[str, int]) -> dict[int, int]:
    """How far each partition is cut: beyond what is stored, before what was sent."""
    ends, topic = arena.ledger.ends(), arena.topics.interactions
    return {
        part: arena.rng.randint(stored[f"{topic}/{part}"] + 1, ends[f"{topic}/{part}"] - 1)
        for part in range(arena.partitions)
    }


def cut_off(
    arena: Arena, stored: Mapping[str, int], cut: Mapping[int, int]
) -> tuple[frozenset[Place], set[tuple[str, int, str, int, int]]]:
    """The records that nobody can read any more, and the gaps to be reported for them."""
    topic = arena.topics.interactions
    starts = {part: stored[f"{topic}/{part}"] for part in cut}
    gone = frozenset(
        Place(topic, part, offset)
        for part, first in starts.items()
        for offset in range(first, cut[part])
    )
    gaps = {(topic, part, "expired", first, cut[part] - first) for part, first in starts.items()}
    return gone, gaps


def halts_on(child: IngestChild, expected: set[Any], *, started: bool = False) -> list[str]:
    """It must end with 70, and its store name exactly these gaps; what differs, in words."""
    if not started:
        child.start()
    if (code := child.ends()) != HALTED:
        return [f"it ended with {code} and not halted: {child.last_words()[-300:]}"]
    with duckdb.connect(str(child.store_path), read_only=True) as store:
        halts = store.execute(_HALT).fetchall()
    found = {
        (gap["topic"], gap["partition"], gap["kind"], gap["next_offset"], gap["lost"])
        for (detail,) in halts
        for gap in json.loads(detail)["gaps"]
    }
    return [] if found == expected else [f"reported {found}, expected {expected}"]


def resynced(child: IngestChild, arena: Arena) -> float:
    """Accept the gap as an operator would, and wait until everything else is stored."""
    child.start(resync=True)
    began_s = time.monotonic()
    child.says("running")
    child.reaches(arena.ledger.ends())
    recover_s = time.monotonic() - began_s
    child.kill()
    return recover_s


def _next_offsets(child: IngestChild) -> Mapping[str, int]:
    return child.progress.next_offsets if child.progress else {}
