"""Producers: events, copies, batches and poison, each in the ledger once acknowledged."""

import itertools
import json
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from kafka import KafkaProducer

from adaptd.consumers.kafka.topic_admin import Topics
from adaptd.daemon.wire.events import FEEDBACK_SCHEMA, INTERACTION_SCHEMA
from tests.chaos.ledger import Fate, Ledger, Sent
from tests.chaos.poison import SMALL

_REMEMBERED = 2_000  # events that may be sent again
_ACK_S = 90
Picker = Callable[[str], int | None]  # topic to partition; None leaves it to the producer
_TEXT = "My card has not arrived yet, although it was sent two weeks ago. What can I do? " * 2


class Event(NamedTuple):
    """One event of a message, as the ledger will have it."""

    id: str | None
    fate: Fate = "event"
    reason: str | None = None


class Message(NamedTuple):
    topic: str
    value: bytes | None
    events: Sequence[Event]


class Sender:
    """An idempotent producer that keeps the ledger. `life` goes into its entries."""

    def __init__(self, bootstrap: str, ledger: Ledger, name: str, **options: Any) -> None:
        self._producer = KafkaProducer(
            bootstrap_servers=bootstrap, acks="all", linger_ms=5, **options
        )
        self._ledger = ledger
        self._name = name
        self._sequence = itertools.count()
        self._futures: deque[Any] = deque()
        self.life = 0

    def send(self, message: Message, *, partition: int | None = None, **options: Any) -> None:
        """Does not wait; `finish` does."""
        number = next(self._sequence)
        future = self._producer.send(message.topic, message.value, partition=partition, **options)
        future.add_callback(partial(self._acknowledged, number, self.life, message.events))
        self._futures.append(future)
        while self._futures and self._futures[0].succeeded():
            self._futures.popleft()

    def finish(self) -> None:
        """Wait for every acknowledgement. Raises where the broker refused one."""
        while self._futures:
            self._futures.popleft().get(timeout=_ACK_S)

    def close(self) -> None:
        self.finish()
        self._producer.close()

    def _acknowledged(self, sequence: int, life: int, events: Sequence[Event], where: Any) -> None:
        self._ledger.add(
            *(
                Sent(
                    topic=where.topic,
                    partition=where.partition,
                    offset=where.offset,
                    index=index,
                    id=event.id,
                    producer=self._name,
                    sequence=sequence,
                    fate=event.fate,
                    reason=event.reason,
                    life=life,
                )
                for index, event in enumerate(events)
            )
        )


class Mix:
    """What a busy installation sends: answers, ratings, 5 % resent, batches, 2 % poison."""

    def __init__(self, topics: Topics, rng: random.Random, name: str) -> None:
        self._topics = topics
        self._rng = rng
        self._name = name
        self._number = itertools.count()
        self._recent: deque[Message] = deque(maxlen=_REMEMBERED)

    def next(self) -> Message:
        """The next message."""
        share = self._rng.random()
        if share < 0.02:
            value, reason = self._rng.choice(SMALL)
            return Message(self._topics.interactions, value, [Event(None, "refused", reason)])
        if share < 0.07 and self._recent:
            return self._rng.choice(self._recent)
        if share < 0.10:
            return self._batch()
        message = self.rating() if share < 0.25 else self.interaction()
        self._recent.append(message)
        return message

    def interaction(self, **fields: Any) -> Message:
        name = f"{self._name}-{next(self._number)}"
        return Message(self._topics.interactions, as_json(answer(name, **fields)), [Event(name)])

    def rating(self) -> Message:
        number = next(self._number)
        event = {
            "schema": FEEDBACK_SCHEMA,
            "id": f"{self._name}-f{number}",
            "time": "2026-11-22T12:00:00Z",
            "interaction": f"{self._name}-{self._rng.randrange(number + 1)}",
            "user": f"user-{number % 97}",
            "kind": "rating",
            "value": 1,
        }
        return Message(self._topics.feedback, as_json(event), [Event(str(event["id"]))])

    def _batch(self) -> Message:
        names = [f"{self._name}-{next(self._number)}" for _ in range(self._rng.randint(2, 6))]
        parts: list[Any] = [answer(name) for name in names]
        events = [Event(name) for name in names]
        if self._rng.random() < 0.3:
            parts.append({"id": 7})
            events.append(Event(None, "refused", "invalid"))
        return Message(self._topics.interactions, as_json({"batch": parts}), events)


class Load:
    """A thread that sends `per_s` messages a second to random partitions until it is stopped."""

    def __init__(
        self, sender: Sender, make: Callable[[], Message], *, per_s: float, pick: Picker
    ) -> None:
        self._sender = sender
        self._make = make
        self._per_s = per_s
        self._pick = pick
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self._failure: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait until everything sent is acknowledged."""
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        self._sender.finish()

    def _run(self) -> None:
        began, sent = time.monotonic(), 0
        try:
            while not self._stop.wait(0.02):
                due = int((time.monotonic() - began) * self._per_s)
                for _ in range(min(due - sent, 500)):
                    message = self._make()
                    self._sender.send(message, partition=self._pick(message.topic))
                    sent += 1
        except BaseException as error:  # noqa: BLE001 - told by `stop`
            self._failure = error


@contextmanager
def under(load: Load) -> Iterator[None]:
    """While inside, the load runs; after it, all of it is acknowledged."""
    load.start()
    try:
        yield
    finally:
        load.stop()


def answer(name: str, **fields: Any) -> dict[str, Any]:
    """An interaction of about 400 bytes."""
    return {
        "schema": INTERACTION_SCHEMA,
        "id": name,
        "time": "2026-11-22T12:00:00Z",
        "model": "support",
        "user": f"user-{len(name)}",
        "request": {"messages": [{"role": "user", "content": _TEXT}]},
        "choices": [{"message": {"role": "assistant", "content": "card_arrival"}}],
        "tags": {"product": "cards"},
    } | fields


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()
