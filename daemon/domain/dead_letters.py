"""Dead letters: events that could not be used, and choices among them. No I/O."""

import builtins
from datetime import datetime

import msgspec

ERASED = "erased"  # reason of a letter whose person was erased: its bytes go


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One event that could not be used.

    `position`: Kafka's offset, or the number of the HTTP item or of the file's line. `bytes` None:
    the event had none. `sender`: the one who vouched for it, JSON of `consumers.decoding`'s Sender.
    `redriven_at`: when its event was stored after all. `published_at`: when it came into Kafka's
    topic.
    """

    id: str
    received_at: datetime
    reason: str
    detail: str
    source: str
    topic: str | None
    partition: int | None
    position: int | None
    batch_index: int | None
    redriven_at: datetime | None = None
    published_at: datetime | None = None
    size_bytes: int | None = None
    sender: str | None = None
    bytes: builtins.bytes | None = None


class LetterCursor(msgspec.Struct, frozen=True, kw_only=True):
    """Place at which a walk over letters goes on: after this one, until those of `until`."""

    received_at: datetime
    id: str
    until: datetime


class LetterChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Letters to redrive: by id, by reason, or (neither) all that wait."""

    ids: list[str] = []
    reason: str | None = None
    after: LetterCursor | None = None


class Redriven(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome for one letter: stored, duplicate (stored before), dead (again), or skipped."""

    id: str
    received_at: datetime
    result: str
    reason: str | None = None
    detail: str | None = None
