"""Replays: requests to read a part of the log again, and their progress. No I/O."""

from datetime import datetime
from enum import StrEnum

import msgspec

from adaptd.daemon.domain.ingest import Partition


class ReplayState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class ReplayRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the log, by offsets or by the broker's record times, not both.

    The beginnings are included and the ends excluded. None reads from the first record, or up to
    the place of the live consumer. `partition` None: all of them.
    """

    topics: list[str]
    partition: int | None = None
    from_offset: int | None = None
    to_offset: int | None = None
    from_time: datetime | None = None
    to_time: datetime | None = None


class ReplayRange(msgspec.Struct, frozen=True, kw_only=True):
    """From `start` up to `end` (excluded) of one partition, under one topic id.

    `gone` counts wanted offsets that the broker no longer has. `left_to_live` counts those that the
    live consumer has yet to read: a replay must not be first.
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

    `duplicates` were stored before; `dead_letters` counts those that are new.
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
    """Name the source of a replay's rows and offsets."""
    return f"replay:{replay_id}"
