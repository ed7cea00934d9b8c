"""Faults of the process: killed, stopped, failing at every place, and not alone."""

import asyncio
import signal
import time
from collections.abc import Sequence

from tests.chaos.arena import Arena, Outcome, World
from tests.chaos.broker_log import join_and_leave
from tests.chaos.child import IngestChild
from tests.chaos.failpoints import places
from tests.chaos.ingest_child import Progress

_SESSION_S = 6.0  # the shortest that the broker permits
_REFUSED = 1


def sigkill_at_random(world: World, *, kills: int, per_s: float = 600) -> Outcome:
    """Under load. One in six comes while it still starts, the others once it stores again."""
    with world.arena("sigkill") as arena:
        child, worst_s = arena.child(), 0.0
        with arena.load(per_s=per_s):
            for _ in range(kills):
                child.start()
                if arena.rng.random() < 1 / 6:
                    time.sleep(arena.rng.uniform(0.2, 2.5))
                else:
                    worst_s = max(worst_s, child.recovered_s())
                    time.sleep(arena.rng.uniform(0, 0.5))
                child.kill()
            child.start()
            worst_s = max(worst_s, child.recovered_s())
        return _settled(
            arena, child, "SIGKILL of the ingest part at random", injected=kills, recover_s=worst_s
        )


def sigkill_at_failpoints(
    world: World, *, each: int = 1, only: Sequence[str] | None = None
) -> Outcome:
    """At every place between a chunk's arrival and Kafka's advisory commit."""
    with world.arena("failpoint-kill") as arena:
        known = asyncio.run(places())
        chosen = [place for place in only or known for _ in range(each)]
        child, worst_s, problems = arena.child(), 0.0, []
        with arena.load():
            for place in chosen:
                after = arena.rng.randint(0, 4) if known[place] else 0
                child.start(fail=[(place, "kill", after)])
                if (code := child.ends()) != -signal.SIGKILL:
                    problems.append(f"{place}: it ended with {code}")
            child.start()
            worst_s = child.recovered_s()
        return _settled(
            arena,
            child,
            "SIGKILL at every failpoint",
            injected=len(chosen),
            recover_s=worst_s,
            problems=problems,
        )


def errors_at_failpoints(world: World, *, only: Sequence[str] | None = None) -> Outcome:
    """An error of the store at every place: one process reads on over all of them."""
    with world.arena("failpoint-error") as arena:
        known = asyncio.run(places())
        chosen = only or [place for place, often in known.items() if often]
        child = arena.child()
        with arena.load():
            # So far apart that chunks are stored in between: five failures in a row halt.
            child.start(fail=[(place, "raise", 5 * turn) for turn, place in enumerate(chosen, 1)])
            problems = [] if _all_tripped(child) else ["not every failpoint was passed"]
        pause_s = child.longest_pause_s
        return _settled(
            arena,
            child,
            "store error at every failpoint",
            injected=len(chosen),
            recover_s=pause_s,
            problems=problems,
        )


def sigstop(world: World, *, times: int) -> Outcome:
    """Stopped until the group has given its partitions to another, and continued."""
    with world.arena("sigstop") as arena:
        child, worst_s = arena.child(session_timeout_s=_SESSION_S), 0.0
        with arena.load(per_s=300):
            child.start()
            child.recovered_s()
            for turn in range(times):
                child.signal(signal.SIGSTOP)
                began_s = time.monotonic()
                if turn % 2 == 0:
                    join_and_leave(arena.broker, arena.topics, arena.name)
                time.sleep(max(0.0, _SESSION_S + 2 - (time.monotonic() - began_s)))
                worst_s = max(worst_s, _continued(child))
        return _settled(arena, child, "SIGSTOP past the session", injected=times, recover_s=worst_s)


def second_on_the_store(world: World, *, times: int) -> Outcome:
    """Another process on the same file is refused; the first one does not notice."""
    with world.arena("second-store") as arena:
        child, other, problems = arena.child(), arena.child(), []
        with arena.load():
            child.start()
            child.recovered_s()
            for _ in range(times):
                other.start()
                code = other.ends()
                if code != _REFUSED or "another process" not in other.last_words():
                    problems.append(f"the second ended with {code}")
        return _settled(
            arena,
            child,
            "second daemon on the store",
            injected=times,
            recover_s=child.longest_pause_s,
            problems=problems,
        )


def second_in_the_group(world: World) -> Outcome:
    """Two daemons with a store each and one group: each store is whole in the end."""
    with world.arena("second-group") as arena:
        child, other = arena.child(), arena.child("other")
        with arena.load(per_s=300):
            child.start()
            child.recovered_s()
            other.start()
            time.sleep(12)  # both ask for the partitions, over and over
        other.kill()
        began_s = time.monotonic()
        if not child.is_alive:
            child.start()
        child.reaches(arena.ledger.ends())
        recover_s = time.monotonic() - began_s
        child.kill()
        other.start()
        other.reaches(arena.ledger.ends())
        other.kill()
        second = arena.judge(other.store_path, fault="", injected=0, recover_s=None)
        return arena.judge(
            child.store_path,
            fault="second daemon in the group",
            injected=1,
            recover_s=recover_s,
            problems=[f"the other store: {problem}" for problem in second.problems],
        )


def foreign_members(world: World, *, times: int) -> Outcome:
    """Strangers take partitions over and give them back."""
    with world.arena("foreign") as arena:
        child = arena.child()
        with arena.load():
            child.start()
            child.recovered_s()
            for _ in range(times):
                join_and_leave(arena.broker, arena.topics, arena.name)
        return _settled(
            arena,
            child,
            "foreign members come and go",
            injected=times,
            recover_s=child.longest_pause_s,
        )


def _settled(
    arena: Arena,
    child: IngestChild,
    fault: str,
    *,
    injected: int,
    recover_s: float,
    problems: Sequence[str] = (),
) -> Outcome:
    """The load has ended: wait until all of it is stored, and look."""
    child.reaches(arena.ledger.ends())
    child.kill()
    return arena.judge(
        child.store_path, fault=fault, injected=injected, recover_s=recover_s, problems=problems
    )


def _all_tripped(child: IngestChild) -> bool:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and child.is_alive:
        if child.progress is not None and child.progress.left == 0:
            return True
        time.sleep(0.1)
    return False


def _continued(child: IngestChild) -> float:
    """SIGCONT, and how long until it stores something new."""
    before: Progress | None = child.progress
    began_s = time.monotonic()
    child.signal(signal.SIGCONT)
    stored = before.stored if before else 0
    while child.stored <= stored + 1:
        assert time.monotonic() - began_s < 60, child.last_words()
        time.sleep(0.02)
    return time.monotonic() - began_s
