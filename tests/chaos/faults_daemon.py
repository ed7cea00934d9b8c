"""The same with all of `adaptd run`: what the child leaves out must change nothing."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from adaptd.consumers.kafka.topic_admin import Topics
from adaptd.daemon.demo.broker import free_port
from tests.chaos.arena import Arena, Outcome, World
from tests.chaos.broker_log import delete_topic
from tests.support.daemon_world import DaemonProcess, settings_for
from tests.support.waiting import until_blocking

_STORES_S = 90
_STARTS_S = 3.0  # a start takes 2.5 s until something is stored
_STOPS_S = 0.4
_FIRST = 4  # kills while a home is made for the first time
_MOMENTS = {"starting": 3, "storing": 4, "stopping": 3}


class _Daemon(DaemonProcess):
    def next_offsets(self) -> dict[str, int]:
        """By "topic/partition"."""
        parts = self.status()["ingest"]["partitions"]
        return {f"{part['topic']}/{part['partition']}": part["next_offset"] for part in parts}

    def stores_something_new_s(self) -> float:
        """Start, and say how long it took until something new was stored."""
        began_s = time.monotonic()
        self.start()
        self.wait_until_answers()
        self.next_commit_s()
        return time.monotonic() - began_s

    def next_commit_s(self) -> float:
        """From now on, how long until something new is stored."""
        began_s, before = time.monotonic(), self._stored()
        until_blocking(lambda: self._stored() > before, within_s=_STORES_S)
        return time.monotonic() - began_s

    def _stored(self) -> int:
        """Records. A partition that is only pinned counts for nothing."""
        return sum(self.next_offsets().values())

    def reaches(self, ends: Mapping[str, int]) -> None:
        """Wait until every partition is stored up to its end."""

        def reached() -> bool:
            found = self.next_offsets()
            return all(found.get(at, 0) >= end for at, end in ends.items())

        until_blocking(reached, within_s=_STORES_S)

    def kill(self) -> int:
        """SIGKILL, and how it ended: that, or what it did before. Safe to repeat."""
        return self.end(signal.SIGKILL)


def sigkill_of_the_daemon(world: World, *, kills: int, seconds: int = 5) -> Outcome:
    """At any moment of its life, under load; a second one beside it is refused every time."""
    with _installation(world, "daemon") as (arena, daemon):
        second = DaemonProcess(
            daemon.settings,
            arena.home / "second.log",
            **_kafka(arena),
            ADAPTD_LISTEN_PORT=str(free_port()),
        )
        worst_s, problems, met = 0.0, [], Counter[str]()
        with arena.load(per_s=300):
            while met.total() < kills and not problems:
                moment = _moment(arena, met)
                worst_s = max(worst_s, _lead_to(moment, arena, daemon))
                if (code := daemon.kill()) == -signal.SIGKILL:
                    met[moment] += 1
                elif code or moment != "stopping":  # one that stops may be quicker than the kill
                    problems.append(f"{moment}, it ended with {code}: {_last_words(daemon)}")
            for _ in range(seconds):
                worst_s = max(worst_s, daemon.stores_something_new_s())
                problems += _refused(second)
                daemon.kill()
            worst_s = max(worst_s, daemon.stores_something_new_s())
        daemon.reaches(arena.ledger.ends())
        daemon.kill()
        moments = ", ".join(f"{times} {moment}" for moment, times in met.items())
        return arena.judge(
            daemon.settings.store_path,
            fault="SIGKILL of `adaptd run` at random",
            injected=met.total() + seconds,
            recover_s=worst_s,
            problems=problems,
            note=f"{moments}; beside it {seconds} more were started and refused",
        )


def broker_away(world: World, *, away_s: float = 25) -> Outcome:
    """Longer than the clients wait: killed and started again, and stopped and continued."""
    with _installation(world, "away") as (arena, daemon):
        broker = world.broker
        ways: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
            "killed": (broker.kill, broker.restart),
            "stopped": (broker.pause, broker.go_on),
        }
        worst_s, problems = 0.0, []
        with arena.load(per_s=200):
            daemon.stores_something_new_s()
            for way, (leave, come_back) in ways.items():
                leave()
                time.sleep(away_s)
                problems += [] if daemon.answers() else [f"{way}: it does not answer"]
                come_back()
                worst_s = max(worst_s, daemon.next_commit_s())
        daemon.reaches(arena.ledger.ends())
        daemon.kill()
        return arena.judge(
            daemon.settings.store_path,
            fault=f"broker away for {away_s:.0f} s",
            injected=len(ways),
            recover_s=worst_s,
            problems=problems,
            note=f"{' and '.join(ways)}, with all of `adaptd run`",
        )


@contextmanager
def _installation(world: World, name: str) -> Iterator[tuple[Arena, _Daemon]]:
    """A daemon, not started. Its topics have one name only, so they are gone afterwards."""
    with world.arena(name, topics=Topics()) as arena:
        settings = settings_for(arena.home)
        daemon = _Daemon(settings, arena.home / "daemon.log", **_kafka(arena))
        try:
            yield arena, daemon
        finally:
            if daemon.process is not None:
                daemon.kill()
            for topic in arena.topics.kinds:
                delete_topic(world.broker, topic)


def _kafka(arena: Arena) -> dict[str, str]:
    return {
        "ADAPTD_KAFKA_BOOTSTRAP": arena.broker.bootstrap,
        "ADAPTD_KAFKA_GROUP": arena.name,
    }


def _moment(arena: Arena, met: Counter[str]) -> str:
    """What the daemon is doing when it is killed next."""
    if met.total() < _FIRST:
        return "starting"
    return arena.rng.choices(list(_MOMENTS), list(_MOMENTS.values()))[0]


def _lead_to(moment: str, arena: Arena, daemon: _Daemon) -> float:
    """Start it and bring it there. Says how long it took to store; 0 where it need not."""
    if moment == "starting":
        daemon.start()
        time.sleep(arena.rng.uniform(0, _STARTS_S))
        return 0.0
    took_s = daemon.stores_something_new_s()
    if moment == "storing":
        time.sleep(arena.rng.uniform(0, 0.5))
    else:
        assert daemon.process is not None
        daemon.process.terminate()
        time.sleep(arena.rng.uniform(0, _STOPS_S))
    return took_s


def _last_words(daemon: DaemonProcess) -> str:
    return daemon.log.read_text(errors="replace")[-300:]


def _refused(second: DaemonProcess) -> list[str]:
    second.start()
    assert second.process is not None
    code, said = second.process.wait(_STORES_S), second.log.read_text()
    right = code == 1 and "another process has the store open" in said
    return [] if right else [f"a second daemon ended with {code}: {said[-300:]}"]
