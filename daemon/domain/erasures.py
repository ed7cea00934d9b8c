"""Forgetting a person: who that is, how far it has got, and the keyed pseudonyms that stay."""

import hashlib
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

import msgspec

_SEPARATOR = "\x1f"


class ErasureState(StrEnum):
    """What is done so far. Each step may be repeated; a killed daemon goes on with the next.

    `rewriting` waits for the store's file to be written anew, which several share.
    """

    REQUESTED = "requested"  # nothing of the person is stored any more from here on
    COLLECTED = "collected"  # what is theirs is known, versions trained on it are tainted
    FILES = "files"  # snapshots, probes, checkpoints and spools are clean
    REWRITING = "rewriting"  # the rows are gone; their bytes are still in the file
    DONE = "done"


class Person(msgspec.Struct, frozen=True):
    """`user` as the application calls them; `tenant` None: whoever is called so, of any tenant."""

    user: str
    tenant: str | None = None


class Erasure(msgspec.Struct, frozen=True, kw_only=True):
    """`person` is a keyed pseudonym. `barred_until`: no event of theirs is stored before it."""

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


class Forgetting(Protocol):
    """What an operator asks of the daemon. `actor` is who asked, as the history keeps it."""

    async def begin(self, person: Person, *, reason: str, actor: str) -> Erasure:
        """Erase a person. Safe to repeat: one that is under way is returned as it is."""
        ...

    async def preview(self, person: Person) -> dict[str, Any]:
        """What would be erased and what is outside our reach; changes nothing."""
        ...

    async def lift(self, person: Person, *, reason: str, actor: str) -> int:
        """Store events of the person again from now on. Returns how many erasures it was of."""
        ...

    async def list(self, limit: int = 50) -> "list[Erasure]":
        """Newest first."""
        ...

    async def get(self, erasure_id: str) -> Erasure:
        """Raises RefusedError where there is none."""
        ...


def pseudonym(key: str, kind: str, value: str) -> str:
    """32 hex digits that stand for a value, and tell nothing without the installation's key.

    The store computes the same in SQL (macro `keyed`).
    """
    text = f"{key}{_SEPARATOR}{kind}{_SEPARATOR}{value}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]
