"""Reading a part of the log again: what is asked, what is read, and how far it is. No I/O."""

from datetime import datetime
from enum import StrEnum
from typing import Protocol

import msgspec

from adaptd.daemon.domain.ingest import Partition


class ReplayState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class ReplayRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which part of the log: offsets or the broker's record times, not both.

    The beginnings are included and the ends excluded; None reads from the first record, or up to
    where the live consumer is. `partition` None: all of them.
    """

    topics: list[str]
    partition: int | None = None
    from_offset: int | None = None
    to_offset: int | None = None
    from_time: datetime | None = None
    to_time: datetime | None = None


class ReplayRange(msgspec.Struct, frozen=True, kw_only=True):
    """From `start` up to `end` (excluded) of one partition, under one topic id.

    `gone` counts offsets that were asked for and that the broker no longer has. `left_to_live`
    counts those that the live consumer has yet to read: it will, a replay must not be first.
    """

    topic: str
    partition: int
    topic_id: str | None
    start: int
    end: int
    gone: int = 0
    left_to_live: int = 0

    @property
    def place(self) -> Partition:
        return Partition(self.topic, self.partition)


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """One replay. `read` of `size` offsets are stored; `problem`: why it waits or failed.

    `duplicates` were stored before, `dead_letters` are those not buried before.
    """

    replay_id: str
    state: ReplayState
    asked: ReplayRequest
    ranges: list[ReplayRange]
    actor: str
    reason: str
    created_at: datetime
    finished_at: datetime | None = None
    problem: str | None = None
    read: int = 0
    size: int = 0
    interactions: int = 0
    feedback: int = 0
    dead_letters: int = 0
    duplicates: int = 0


def source_of(replay_id: str) -> str:
    """The source of its rows and of its offsets."""
    return f"replay:{replay_id}"


class ReplayBook(Protocol):
    """Where replays are kept. Their progress is in the offsets of their source."""

    async def add(self, replay: Replay) -> None: ...

    async def next_running(self) -> Replay | None:
        """The oldest that is not finished."""
        ...

    async def get(self, replay_id: str) -> Replay:
        """Raises RefusedError where there is none."""
        ...

    async def list(self, *, limit: int = 50) -> list[Replay]:
        """The newest first."""
        ...

    async def note(self, replay_id: str, problem: str | None) -> None:
        """Why it waits; None: it goes on."""
        ...

    async def finish(
        self, replay_id: str, state: ReplayState, *, actor: str, problem: str | None = None
    ) -> bool:
        """End a running one; False where it has ended already."""
        ...
