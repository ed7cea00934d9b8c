"""Faults of the store: put back to an older copy, and without room to write."""

import shutil
import time

from tests.chaos.arena import Arena, Outcome, World
from tests.chaos.broker_log import drop_before
from tests.chaos.child import IngestChild
from tests.chaos.faults_broker import cut_off, cuts, halts_on, resynced
from tests.chaos.full_disks import Disk, disk_at

_ROOM_BYTES = 512 * 1024  # up to two blocks of the store
_FULL_S = 5.0
_SAID = ("there is no room", "is the disk full?")


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
    """No room to write for a while, whatever it is started for; then there is room again."""
    with world.arena("disk-full") as arena, disk_at(arena.home / "daemon") as disk:
        child, worst_s = arena.child(within=disk.within), 0.0
        with arena.load():
            child.start()
            child.recovered_s()
            for turn in range(times):
                room_bytes = arena.rng.randint(0, _ROOM_BYTES) if turn % 2 else 0
                disk.fill(child, room_bytes=room_bytes)
                if turn % 2:
                    child.kill()  # it starts anew, from a log cut anywhere, without room for it
                stored = _until_full(child, disk)
                disk.free(child)
                worst_s = max(worst_s, _room_again(child, stored))
        child.reaches(arena.ledger.ends())
        child.kill()
        disk.bring_home(child)
        said = child.log_path.read_text(errors="replace")
        return arena.judge(
            child.store_path,
            fault="disk full",
            injected=times,
            recover_s=worst_s,
            problems=[] if any(words in said for words in _SAID) else ["it was never full"],
            note=disk.note,
        )


def _until_full(child: IngestChild, disk: Disk) -> int:
    """Until it stores nothing any more, and a while longer. Says how much it has stored.

    Where it ends it is started again, as a service manager would.
    """
    deadline = time.monotonic() + 60
    before, since_s = child.stored, time.monotonic()
    while time.monotonic() - since_s < _FULL_S:
        assert time.monotonic() < deadline, "it goes on storing on a full disk"
        if child.stored > before:
            before, since_s = child.stored, time.monotonic()
        if not child.is_alive:
            child.ends()
            child.start()
            disk.fill(child, room_bytes=0)
        time.sleep(0.1)
    return before


def _room_again(child: IngestChild, stored: int) -> float:
    """Start it where it has ended, and say how long until more than that is stored."""
    began_s = time.monotonic()
    while child.stored <= stored:
        if not child.is_alive:
            child.ends()
            child.start()
        assert time.monotonic() - began_s < 60, child.last_words()
        time.sleep(0.02)
    return time.monotonic() - began_s
