"""One fault's own topics, store, producers and ledger; and the row of the table it ends as."""

import random
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from adaptd.consumers.kafka.topic_admin import Topics
from tests.chaos.broker_log import read_log, told
from tests.chaos.checker import Findings, compare, read_store
from tests.chaos.child import IngestChild
from tests.chaos.ingest_child import ChildSettings
from tests.chaos.ledger import Ledger, Place
from tests.chaos.load import Load, Mix, Sender, under
from tests.support.broker import Broker


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table. `recover_s`: the longest time from a fault's end to the next commit."""

    fault: str
    injected: int
    sent: int
    lost: int
    duplicated: int
    reordered: int
    recover_s: float | None
    problems: list[str] = []
    note: str = ""

    @property
    def is_sound(self) -> bool:
        return not (self.lost or self.duplicated or self.reordered or self.problems)


@dataclass(frozen=True)
class World:
    """What all faults share: a broker, a folder, and where chance comes from."""

    broker: Broker
    home: Path
    seed: int

    def arena(
        self, name: str, *, topics: Topics | None = None, partitions: int = 3, **config: str
    ) -> "Arena":
        return Arena(self, name, topics=topics, partitions=partitions, config=config)


class Arena:
    """Topics of its own are made, with `config` (a key's dots as underscores)."""

    def __init__(
        self,
        world: World,
        name: str,
        *,
        topics: Topics | None,
        partitions: int,
        config: dict[str, str],
    ) -> None:
        self.world = world
        self.name = name
        self.broker = world.broker
        self.partitions = partitions
        self.rng = random.Random(f"{world.seed}/{name}")
        self.topics = topics or Topics(f"{name}-interactions", f"{name}-feedback")
        for topic in self.topics.kinds:
            self.broker.create_topic(topic, partitions=partitions, **config)
        self.home = world.home / name
        self.home.mkdir(parents=True)
        self.ledger = Ledger(self.home / "acknowledged.jsonl")
        self.mix = Mix(self.topics, self.rng, name)
        self._children: list[IngestChild] = []
        self._senders: list[Sender] = []

    def __enter__(self) -> "Arena":
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.kill()
        self.ledger.close()

    def child(
        self, home: str = "daemon", *, within: Sequence[str] = (), **settings: Any
    ) -> IngestChild:
        """The ingest part of a daemon, not started. It is killed at the end at the latest."""
        asked = {"group": self.name, "topics": self.topics} | settings
        made = IngestChild(
            ChildSettings(home=str(self.home / home), bootstrap=self.broker.bootstrap, **asked),
            within=within,
        )
        self._children.append(made)
        return made

    def sender(self, name: str = "load", **options: Any) -> Sender:
        """A producer. Close it."""
        return Sender(self.broker.bootstrap, self.ledger, f"{self.name}/{name}", **options)

    @contextmanager
    def load(self, *, per_s: float = 600) -> Iterator[Load]:
        """While inside, producers send the usual mix."""
        sender = self.sender()
        load = Load(
            sender, self.mix.next, per_s=per_s, pick=lambda _: self.rng.randrange(self.partitions)
        )
        try:
            with under(load):
                yield load
        finally:
            sender.close()

    def send(self, messages: int, *, life: int = 0, **options: Any) -> None:
        """Send so many of the usual mix, and wait until all are acknowledged."""
        sender = self.sender(f"burst-{life}-{self.ledger.events}")
        sender.life = life
        for _ in range(messages):
            part = self.rng.randrange(self.partitions)
            sender.send(self.mix.next(), partition=part, **options)
        sender.close()

    def judge(
        self,
        child_store: Path,
        *,
        fault: str,
        injected: int,
        recover_s: float | None,
        gone: Collection[Place] = frozenset(),
        compacted: bool = False,
        problems: Collection[str] = (),
        note: str = "",
    ) -> Outcome:
        """Compare the store with the ledger and the log. Whoever had the store open is gone."""
        log = read_log(self.broker.bootstrap, self.topics.kinds)
        held = read_store(child_store)
        found: Findings = compare(
            held,
            list(self.ledger.read()),
            log.records,
            starts=log.starts,
            gone=gone,
            compacted=compacted,
        )
        ahead = [
            f"{at} was told as {offset}, stored is {held.next_offsets.get(at)}"
            for at, offset in told(self.broker, self.name).items()
            if offset > held.next_offsets.get(at, 0)
        ]
        found.note("offsets that Kafka was told before they were stored", ahead)
        return Outcome(
            fault=fault,
            injected=injected,
            sent=found.sent,
            lost=found.lost,
            duplicated=found.duplicated,
            reordered=found.reordered,
            recover_s=None if recover_s is None else round(recover_s, 2),
            problems=[*found.problems, *problems],
            note=note,
        )
