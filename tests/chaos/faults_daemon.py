"""The same with all of `adaptd run`: what the child leaves out must change nothing."""

import signal
import time

from consumers.topics import Topics
from daemon.demo.broker import free_port
from tests.chaos.arena import Outcome, World
from tests.daemon_world import DaemonProcess, settings_for
from tests.waiting import until_blocking

_STORES_S = 90


class _Daemon(DaemonProcess):
    def next_offsets(self) -> dict[str, int]:
        """By "topic/partition"."""
        parts = self.status()["ingest"]["partitions"]
        return {f"{part['topic']}/{part['partition']}": part["next_offset"] for part in parts}

    def stores_something_new_s(self) -> float:
        """Start, and say how long it took until something new was stored."""
        self.start()
        began_s = time.monotonic()
        self.wait_until_answers()
        before = self.next_offsets()
        until_blocking(lambda: self.next_offsets() != before, within_s=_STORES_S)
        return time.monotonic() - began_s


def sigkill_of_the_daemon(world: World, *, times: int) -> Outcome:
    """`adaptd run` under load; a second one beside it is refused every time."""
    with world.arena("daemon", topics=Topics()) as arena:
        kafka = {
            "ADAPTD_KAFKA_BOOTSTRAP": world.broker.bootstrap,
            "ADAPTD_KAFKA_GROUP": arena.name,
        }
        settings = settings_for(arena.home)
        daemon = _Daemon(settings, arena.home / "daemon.log", **kafka)
        port = {"ADAPTD_LISTEN_PORT": str(free_port())}
        second = DaemonProcess(settings, arena.home / "second.log", **kafka, **port)
        worst_s, problems = 0.0, []
        try:
            with arena.load():
                for _ in range(times):
                    worst_s = max(worst_s, daemon.stores_something_new_s())
                    problems += _refused(second)
                    daemon.end(signal.SIGKILL)
                worst_s = max(worst_s, daemon.stores_something_new_s())
            ends = arena.ledger.ends()
            until_blocking(
                lambda: all(daemon.next_offsets().get(at, 0) >= end for at, end in ends.items()),
                within_s=_STORES_S,
            )
        finally:
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.end(signal.SIGKILL)
        return arena.judge(
            settings.store_path,
            fault="SIGKILL of all of `adaptd run`",
            injected=times,
            recover_s=worst_s,
            problems=problems,
            note=f"beside it {times} more were started and refused",
        )


def _refused(second: DaemonProcess) -> list[str]:
    second.start()
    assert second.process is not None
    code, said = second.process.wait(_STORES_S), second.log.read_text()
    right = code == 1 and "another process has the store open" in said
    return [] if right else [f"a second daemon ended with {code}: {said[-300:]}"]
