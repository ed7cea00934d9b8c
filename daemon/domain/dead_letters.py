"""Events that could not be used: what is kept of one, and where they are kept. No I/O."""

import builtins
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

ERASED = "erased"  # the reason of a letter whose person was: its bytes go


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """`position`: Kafka's offset, or the number of the HTTP item or of the file's line.

    `bytes` None: it had none. `sender`: who vouched for it, JSON of `consumers.decoding`'s Sender.
    `redriven_at`: when its event was stored after all. `published_at`: in Kafka's topic.
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
    """Where a walk over letters goes on: after this one, up to those received at `until`."""

    received_at: datetime
    id: str
    until: datetime


class LetterChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which letters to redrive: by id, by reason, or (neither) all that wait."""

    ids: list[str] = []
    reason: str | None = None
    after: LetterCursor | None = None


class Redriven(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a letter: stored, duplicate (stored before), dead (again), or skipped."""

    id: str
    received_at: datetime
    result: str
    reason: str | None = None
    detail: str | None = None


class LetterBook(Protocol):
    """Where letters are kept."""

    async def waiting(
        self, choice: LetterChoice, *, limit: int, max_bytes: int
    ) -> tuple[Sequence[DeadLetter], LetterCursor | None]:
        """Letters with their bytes, oldest first, less those redriven; and where to go on."""
        ...

    async def settle(self, results: Sequence[Redriven], *, buried_again: Sequence[str]) -> None:
        """Keep what became of letters; drop the copies that the sink made of `buried_again`."""
        ...

    async def unpublished(self, *, limit: int, max_bytes: int) -> Sequence[DeadLetter]:
        """Those not in Kafka's topic, with their bytes, oldest first."""
        ...

    async def mark_published(self, letters: Sequence[DeadLetter]) -> None: ...
