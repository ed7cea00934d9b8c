"""Faults of the store: put back to an older copy, and without room to write."""

import shutil
import time

from tests.chaos.arena import Arena, Outcome, World
from tests.chaos.broker_log import drop_before
from tests.chaos.child import IngestChild
from tests.chaos.faults_broker import cut_off, cuts, halts_on, resynced

_ROOM_BYTES = 64 * 1024
_FULL_S = 5.0


def older_copy(world: World, *, expired: bool = False) -> Outcome:
    """The copy reads on from its own offset. `expired`: the broker no longer has all of that."""
    with world.arena(f"older-{expired}".lower()) as arena:
        child = arena.child()
        child.start()
        arena.send(400)
        child.reaches(arena.ledger.ends())
        child.stop()
        copied = arena.ledger.ends()
        copy = arena.home / "copy.duckdb"
        shutil.copyfile(child.store_path, copy)
        child.start()
        arena.send(600)
        child.reaches(arena.ledger.ends())
        child.kill()
        _put_back(child, arena)
        if not expired:
            child.start()
            recover_s = child.recovered_s()
            child.reaches(arena.ledger.ends())
            child.kill()
            return arena.judge(
                child.store_path,
                fault="store restored from an older copy",
                injected=1,
                recover_s=recover_s,
            )
        cut = cuts(arena, copied)
        drop_before(arena.broker, arena.topics.interactions, cut)
        gone, expected = cut_off(arena, copied, cut)
        problems = halts_on(child, expected)
        recover_s = resynced(child, arena)
        return arena.judge(
            child.store_path,
            fault="store restored, and retention passed it",
            injected=1,
            recover_s=recover_s,
            gone=gone,
            problems=problems,
            note=f"halted; {sum(gap[4] for gap in expected)} offsets reported gone, all of them",
        )


def _put_back(child: IngestChild, arena: Arena) -> None:
    for file in child.home.glob("store.duckdb*"):
        file.unlink()  # the log of what was written since, too
    shutil.copyfile(arena.home / "copy.duckdb", child.store_path)


def disk_full(world: World, *, times: int) -> Outcome:
    """No file may grow for a while, as on a full disk; then there is room again."""
    with world.arena("disk-full") as arena:
        child, worst_s = arena.child(), 0.0
        with arena.load():
            child.start()
            child.recovered_s()
            for _ in range(times):
                child.limit_files(child.file_bytes() + _ROOM_BYTES)
                _until_full(child)
                worst_s = max(worst_s, _room_again(child))
        child.reaches(arena.ledger.ends())
        child.kill()
        return arena.judge(child.store_path, fault="disk full", injected=times, recover_s=worst_s)


def _until_full(child: IngestChild) -> None:
    """Until it stores nothing any more, and a while longer."""
    deadline = time.monotonic() + 60
    before, since_s = child.stored, time.monotonic()
    while child.is_alive and time.monotonic() - since_s < _FULL_S:
        assert time.monotonic() < deadline, "it goes on storing on a full disk"
        if child.stored > before:
            before, since_s = child.stored, time.monotonic()
        time.sleep(0.1)


def _room_again(child: IngestChild) -> float:
    """Lift the limit, start it where it has ended, and say how long until it stores again."""
    if not child.is_alive:
        child.start()
        return child.recovered_s()
    before, began_s = child.stored, time.monotonic()
    child.limit_files(None)
    while child.stored <= before:
        if not child.is_alive:
            child.start()
            return time.monotonic() - began_s + child.recovered_s()
        assert time.monotonic() - began_s < 60, child.last_words()
        time.sleep(0.02)
    return time.monotonic() - began_s
