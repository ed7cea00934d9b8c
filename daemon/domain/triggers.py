"""Facts that triggers look at, between the store, the builder of snapshots and the decision."""

from datetime import datetime

import msgspec


class CronState(msgspec.Struct, frozen=True, kw_only=True):
    """One cron of one alias. `fired_at` is its last fire, or when it was first seen.

    `waiting`: no run has started since that fire.
    """

    job: str
    fired_at: datetime
    waiting: bool


class SnapshotMark(msgspec.Struct, frozen=True, kw_only=True):
    """The newest snapshot's time and the policy version it was taken under."""

    as_of: datetime
    policy_version: int


class JudgedAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """Answers of a window that were rated or corrected, and how many of them badly."""

    total: int
    negative: int


class UsableExamples(msgspec.Struct, frozen=True, kw_only=True):
    """Content of a snapshot taken now, after selection, caps and quarantine.

    `examples` are usable on either side; `new_examples` are those that no version saw yet.
    """

    examples: int = 0
    new_examples: int
    train: int
    holdout_items: int
    holdout_groups: int
