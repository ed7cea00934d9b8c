"""Erasures: the person, the state of the work, and the keyed pseudonyms that stay."""

import hashlib
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

_SEPARATOR = "\x1f"


class ErasureState(StrEnum):
    """Work done so far. Each step may be repeated; a killed daemon goes on with the next.

    `rewriting` waits for the store's file to be written anew, which several share.
    """

    REQUESTED = "requested"  # nothing of the person is stored any more from here on
    COLLECTED = "collected"  # their rows are known, versions trained on them are tainted
    FILES = "files"  # snapshots, probes, checkpoints and spools are clean
    REWRITING = "rewriting"  # the rows are gone; their bytes are still in the file
    DONE = "done"


class Person(msgspec.Struct, frozen=True):
    """One end user. `user` is the application's name for them; `tenant` None: of any tenant."""

    user: str
    tenant: str | None = None


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """One request to erase a person, and its progress.

    `person` is a keyed pseudonym. No event of theirs is stored before `barred_until`.
    """

    erasure_id: str
    person: str
    tenant: str | None
    reason: str
    actor: str
    state: ErasureState
    requested_at: datetime
    updated_at: datetime
    barred_until: datetime
    finished_at: datetime | None = None
    lifted_at: datetime | None = None
    waits_for: str | None = None
    report: dict[str, Any] = {}


def pseudonym(key: str, kind: str, value: str) -> str:
    """Return 32 hex digits that stand for a value and tell nothing without the installation's key.

    The store computes the same in SQL (macro `keyed`).
    """
    text = f"{key}{_SEPARATOR}{kind}{_SEPARATOR}{value}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]
