"""Options of an import: how the lines of a file are read. No I/O."""

import hashlib
from datetime import UTC, datetime
from typing import Literal

import msgspec

from adaptd.daemon.domain.ingest import Partition
from adaptd.daemon.wire.events import AwareTime, Id

Format = Literal["adaptd", "openai", "langfuse"]
_READERS = 1  # raise it when lines are read differently, so that a file may be imported again


class Rating(msgspec.Struct, frozen=True, kw_only=True):
    """A score that is a rating. Its scale is mapped to -1 to 1; None: it is -1 or 1 already."""

    name: str
    low: float | None = None
    high: float | None = None

    @property
    def scale(self) -> tuple[float, float] | None:
        return None if self.low is None or self.high is None else (self.low, self.high)


class ImportOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options of one import. `tenant` is put on every event; None keeps what lines say.

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
        """The partition of the file under these options. Other options read the file again."""
        key = msgspec.json.encode([_READERS, self], order="sorted")
        return Partition(f"{self.format}:{hashlib.sha256(key).hexdigest()[:16]}", 0)


class ImportStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first line of a body of lines. `start` is the number of the next line, from 1."""

    start: int
    options: ImportOptions


def content_id(prefix: str, *parts: object) -> str:
    """Make an id of the content. A repeat has the same id, so it is not stored twice."""
    content = msgspec.json.encode(parts, order="sorted")
    return f"{prefix}-{hashlib.sha256(content).hexdigest()[:32]}"
