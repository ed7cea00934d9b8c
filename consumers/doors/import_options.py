"""How the lines of an imported file are read. No I/O."""

import hashlib
from datetime import UTC, datetime
from typing import Literal

import msgspec

from adaptd.daemon.domain.ingest import Partition
from adaptd.daemon.wire.events import AwareTime, Id

Format = Literal["adaptd", "openai", "langfuse"]
_READERS = 1  # raise it when a line would be read differently: a file may then be imported again


class Rating(msgspec.Struct, frozen=True, kw_only=True):
    """A score that is a rating. Its scale becomes -1 to 1; None: it is -1 or 1 already."""

    name: str
    low: float | None = None
    high: float | None = None

    @property
    def scale(self) -> tuple[float, float] | None:
        return None if self.low is None or self.high is None else (self.low, self.high)


class ImportOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tenant` is put on every event; None keeps what adaptd's own lines say.

    openai: `model` is the alias that answered; `reviewer` makes each last answer a correction by
    that reviewer. langfuse: `ratings` are the scores that are ratings, all others become labels and
    metrics; `by` says which of its ids is the interaction's. `time` is for lines without one.
    """

    format: Format
    tenant: Id | None = None
    model: Id | None = None
    reviewer: Id | None = None
    ratings: tuple[Rating, ...] = ()
    by: Literal["trace", "observation"] = "trace"
    time: AwareTime = datetime(1970, 1, 1, tzinfo=UTC)

    @property
    def place(self) -> Partition:
        """The partition of the file that these options make: other options read it anew."""
        told = msgspec.json.encode([_READERS, self], order="sorted")
        return Partition(f"{self.format}:{hashlib.sha256(told).hexdigest()[:16]}", 0)


class ImportStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first line of a body of lines: `start` is the number of the one after it, from 1."""

    start: int
    options: ImportOptions


def content_id(prefix: str, *parts: object) -> str:
    """The same for the same content, so that a repeat stores nothing twice."""
    told = msgspec.json.encode(parts, order="sorted")
    return f"{prefix}-{hashlib.sha256(told).hexdigest()[:32]}"
