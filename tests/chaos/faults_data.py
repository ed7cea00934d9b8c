"""Faults of what is sent: copies, poison, and clocks that are a year off."""

import signal
import time
from datetime import UTC, datetime, timedelta

from tests.chaos.arena import Arena, Outcome, World
from tests.chaos.child import IngestChild
from tests.chaos.load import Event, Message, Sender
from tests.chaos.poison import BOMB, LARGE, NO_VALUE, SMALL

_YEAR = timedelta(days=365)
_MOST_RSS_MB = 1024
_CODECS = ("gzip", "zstd", "lz4")


def copies(world: World, *, window_s: float = 8) -> Outcome:
    """Within a batch, across batches, partitions and restarts; beyond the window one is new."""
    with world.arena("copies") as arena:
        child = arena.child(window_s=window_s)
        child.start()
        first, second = arena.sender("first"), arena.sender("second")
        began_s = time.monotonic()
        waves = [[arena.mix.interaction() for _ in range(100)] for _ in range(2)]
        waves[1] += [arena.mix.rating() for _ in range(50)]
        injected = 0
        for wave in waves:
            _send(arena, first, [*wave, *wave], spread=False)  # in one batch
            child.reaches(arena.ledger.ends())
            _send(arena, second, wave)  # by another producer, to any partition
            injected += 2 * len(wave)
        child.reaches(arena.ledger.ends())
        child.kill()
        child.start()
        _send(arena, first, waves[1])  # and after a crash
        child.reaches(arena.ledger.ends())
        late = time.monotonic() - began_s > window_s
        _beyond(arena, child, second, waves[1][:60], window_s)
        for sender in (first, second):
            sender.close()
        child.reaches(arena.ledger.ends())
        child.kill()
        return arena.judge(
            child.store_path,
            fault="copies within and beyond the window",
            injected=injected + len(waves[1]) + 60,
            recover_s=None,
            problems=["too slow: the window had passed before the copies came"] if late else [],
            note="60 from beyond the window stored as new, as documented",
        )


def _beyond(
    arena: Arena, child: IngestChild, sender: Sender, messages: list[Message], window_s: float
) -> None:
    """Send them again when the window has passed, twice: the second is a copy of the new one."""
    time.sleep(window_s + 1)
    again = [
        message._replace(events=[Event(event.id, "again") for event in message.events])
        for message in messages
    ]
    _send(arena, sender, again)
    child.reaches(arena.ledger.ends())
    _send(arena, sender, messages)


def _send(arena: Arena, sender: Sender, messages: list[Message], *, spread: bool = True) -> None:
    for message in messages:
        sender.send(message, partition=arena.rng.randrange(arena.partitions) if spread else 0)
    sender.finish()


def _send_bomb(arena: Arena, codec: str, *, partition: int) -> None:
    packed = arena.sender(f"packed-{codec}", max_request_size=10**8, compression_type=codec)
    value, reason = BOMB
    packed.send(_refused(arena, value, reason), partition=partition)
    packed.close()


def poison(world: World, *, rounds: int = 3) -> Outcome:
    """Everything that nobody should send, between good events, over a kill."""
    with world.arena("poison", max_message_bytes=str(8 * 10**6)) as arena:
        child = arena.child()
        sender = arena.sender(max_request_size=10**8)
        injected = 0
        for turn in range(rounds):
            bad = [*SMALL, NO_VALUE, *(LARGE if turn == 0 else [])]
            arena.rng.shuffle(bad)
            for value, reason in bad:
                sender.send(
                    _refused(arena, value, reason), partition=arena.rng.randrange(3), key=b"poison"
                )
                sender.send(arena.mix.interaction(), partition=arena.rng.randrange(3))
            _send_bomb(arena, _CODECS[turn % len(_CODECS)], partition=turn % 3)
            injected += len(bad) + 1
        sender.send(_large(arena), partition=0)
        sender.close()
        child.start(fail=[("before commit", "kill", 0)])
        problems = [] if child.ends() == -signal.SIGKILL else [child.last_words()[-300:]]
        child.start()
        recover_s = child.recovered_s()
        child.reaches(arena.ledger.ends())
        child.kill()
        if child.peak_rss_mb > _MOST_RSS_MB:
            problems.append(f"it took {child.peak_rss_mb:.0f} MB of memory")
        return arena.judge(
            child.store_path,
            fault="poison of every kind",
            injected=injected,
            recover_s=recover_s,
            problems=problems,
            note=f"memory at most {child.peak_rss_mb:.0f} MB",
        )


def _refused(arena: Arena, value: bytes | None, reason: str) -> Message:
    return Message(arena.topics.interactions, value, [Event(None, "refused", reason)])


def _large(arena: Arena) -> Message:
    """An event just below the limit: it is stored."""
    text = "x" * 4_900_000
    return arena.mix.interaction(request={"messages": [{"role": "user", "content": text}]})


def clocks(world: World) -> Outcome:
    """Senders, records and the daemon's own clock a year ahead and behind; copies stay copies."""
    config = {"message_timestamp_after_max_ms": str(10**12), "retention_ms": "-1"}
    with world.arena("clocks", **config) as arena:
        child, worst_s = arena.child(), 0.0
        sender = arena.sender()
        sent: list[Message] = []
        # Forwards first: a jump forwards is what a year's stop looks like, and ends the window.
        for ahead_s in (0, _YEAR.total_seconds(), -_YEAR.total_seconds(), 0):
            now_ms = int(time.time() * 1000)
            if ahead_s > 0:
                sent = []
            wave = [_dated(arena, turn) for turn in range(120)]
            for turn, message in enumerate([*wave, *wave[:40], *sent]):
                skew_ms = int(_skew(turn).total_seconds() * 1000)
                sender.send(message, partition=turn % 3, timestamp_ms=now_ms + skew_ms)
            sender.finish()
            sent += wave
            child.start(clock_ahead_s=ahead_s)
            worst_s = max(worst_s, child.recovered_s())
            child.reaches(arena.ledger.ends())
            child.kill()
        sender.close()
        return arena.judge(
            child.store_path, fault="clocks a year off", injected=8, recover_s=worst_s
        )


def _skew(turn: int) -> timedelta:
    return (-_YEAR, timedelta(0), _YEAR)[turn % 3]


def _dated(arena: Arena, turn: int) -> Message:
    """An interaction by a sender whose clock is off."""
    return arena.mix.interaction(time=(datetime.now(UTC) + _skew(turn)).isoformat())
