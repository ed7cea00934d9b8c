"""What the broker acknowledged to our producers, event by event, kept in a file of theirs."""

from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple

import msgspec

# event: to be stored once, whatever copies of it come within the window. again: a copy from beyond
# the window, to be stored once more. refused: a dead letter. aborted: of a transaction that was.
Fate = Literal["event", "again", "refused", "aborted"]


class Place(NamedTuple):
    """Where an event stands in the log."""

    topic: str
    partition: int
    offset: int
    index: int = 0


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """One acknowledged event. `sequence` counts a producer's messages in the order of sending.

    `reason`: of a refused one. `life` tells a topic from the one made anew under its name.
    """

    topic: str
    partition: int
    offset: int
    index: int = 0
    id: str | None
    producer: str
    sequence: int
    fate: Fate = "event"
    reason: str | None = None
    life: int = 0

    @property
    def place(self) -> Place:
        return Place(self.topic, self.partition, self.offset, self.index)


class Ledger:
    """Appends to a file as acknowledgements come, from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab")
        self._lock = Lock()
        self._ends: dict[str, int] = {}
        self.events = 0

    def add(self, *sent: Sent) -> None:
        with self._lock:
            for one in sent:
                self._file.write(msgspec.json.encode(one) + b"\n")
                at = f"{one.topic}/{one.partition}"
                if one.fate != "aborted":
                    self._ends[at] = max(self._ends.get(at, 0), one.offset + 1)
            self.events += len(sent)

    def ends(self) -> dict[str, int]:
        """By "topic/partition": the offset after the last acknowledged record."""
        with self._lock:
            return dict(self._ends)

    def forget_ends(self, topic: str) -> None:
        """The topic is made anew: its offsets begin at 0 again."""
        with self._lock:
            self._ends = {at: end for at, end in self._ends.items() if not _is_of(at, topic)}

    def read(self) -> Iterator[Sent]:
        """Everything acknowledged so far, as the file has it."""
        with self._lock:
            self._file.flush()
        decode = msgspec.json.Decoder(Sent).decode
        with self._path.open("rb") as lines:
            yield from map(decode, lines)

    def close(self) -> None:
        self._file.close()


def _is_of(at: str, topic: str) -> bool:
    return at.rpartition("/")[0] == topic
