"""The events of the benchmark: interactions of exactly 400 bytes, as a gateway makes them."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache

EVENT_BYTES = 400
_TEMPLATE = (
    '{{"schema":"adaptd.interaction/1","id":"{id}","time":"{time}Z","model":"support",'
    '"tenant":"acme","adapter":"support@v12-9f86d081","conversation":"c-{conversation}",'
    '"request":{{"messages":[{{"role":"user","content":"{question}"}}]}},'
    '"choices":[{{"message":{{"role":"assistant","content":"card_arrival"}},"finish_reason":"stop"}}],'
    '"latency_ms":{latency},"tags":{{"product":"cards"}}}}'
)
_WORDS = ("my", "card", "has", "not", "arrived", "yet", "where", "is", "it", "please", "transfer")


def make_events(count: int, *, began_ms: int, seed: int = 1, per_ms: int = 20) -> Iterator[bytes]:
    """Events with ids in the order of time (UUIDv7), `per_ms` of them a millisecond."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    for number in range(count):
        ms = began_ms + number // per_ms
        event = _TEMPLATE.format(
            id=_uuid7(ms, chance),
            time=_time(ms),
            conversation=chance.randrange(100_000),
            latency=100 + chance.randrange(900),
            question="{question}",
        )
        missing = EVENT_BYTES - len(event) + len("{question}")
        yield event.replace("{question}", _words(chance, missing)).encode()


def pack(events: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The same events, `size` of them in a batch message."""
    part: list[bytes] = []
    for event in events:
        part.append(event)
        if len(part) == size:
            yield b'{"batch":[' + b",".join(part) + b"]}"
            part = []
    if part:
        yield b'{"batch":[' + b",".join(part) + b"]}"


def _words(chance: random.Random, letters: int) -> str:
    text = " ".join(chance.choices(_WORDS, k=letters // 3))
    return text[:letters]


def _uuid7(ms: int, chance: random.Random) -> str:
    text = f"{ms:012x}7{chance.getrandbits(12):03x}8{chance.getrandbits(60):015x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _time(ms: int) -> str:
    seconds, rest = divmod(ms, 1000)
    return f"{_second(seconds)}.{rest:03d}"


@lru_cache(8)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
