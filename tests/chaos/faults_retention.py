"""The broker's own retention passes what was to be read next."""

import time

from tests.chaos.arena import Outcome, World
from tests.chaos.broker_log import expire
from tests.chaos.faults_broker import cut_off, halts_on, resynced

_KEPT_MS = 3600_000
_TOO_OLD_MS = 2 * _KEPT_MS
# The broker looks for what is too old every five minutes, and half a minute after its start.
PROPERTIES = "log.retention.check.interval.ms=500\nlog.initial.task.delay.ms=500\n"


def passed_by_time(world: World) -> Outcome:
    """While it is down, whole segments grow too old and are deleted; the rest is stored."""
    with world.arena("retention-time", retention_ms="-1", segment_ms=str(_KEPT_MS)) as arena:
        old_ms = int(time.time() * 1000) - _TOO_OLD_MS
        child, topic = arena.child(), arena.topics.interactions
        child.start()
        arena.send(300, timestamp_ms=old_ms)
        child.reaches(arena.ledger.ends())
        child.stop()
        stored = arena.ledger.ends()
        arena.send(300, timestamp_ms=old_ms)
        arena.send(300)  # so much younger that every partition begins a segment with them
        cut = expire(
            arena.broker,
            topic,
            keep_ms=_KEPT_MS,
            beyond={part: stored[f"{topic}/{part}"] for part in range(arena.partitions)},
        )
        gone, expected = cut_off(arena, stored, cut)
        problems = halts_on(child, expected)
        recover_s = resynced(child, arena)
        return arena.judge(
            child.store_path,
            fault="retention, while it is down",
            injected=1,
            recover_s=recover_s,
            gone=gone,
            problems=problems,
            note="halted; the broker's own retention.ms deleted "
            f"{sum(gap[4] for gap in expected)} offsets, all of them reported gone",
        )
