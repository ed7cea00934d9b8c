"""A policy as the store keeps it. No I/O; adaptd.daemon.policy and adaptd.daemon.store share it."""

from datetime import datetime
from typing import Protocol

import msgspec


class StoredPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one alias's policy. The same text is the same version, whenever it comes back.

    `applied_at` is when it came into force last; `loaded_at` when it was first seen. `withdrawn_at`
    is set from when no file names its alias until it is applied again.
    """

    model: str
    version: int
    sha256: str
    path: str
    yaml: str
    loaded_at: datetime
    applied_at: datetime
    withdrawn_at: datetime | None = None


class PolicyLog(Protocol):
    """Where versions are kept (daemon/store/lifecycle/policies.py)."""

    async def apply(
        self, model: str, *, yaml: str, sha256: str, path: str, now: datetime
    ) -> StoredPolicy:
        """Put a text in force as a new version, or as the one it was before. Safe to repeat."""
        ...

    async def withdraw(self, model: str, *, now: datetime) -> None:
        """Note that no file names an alias any more. Safe to repeat."""
        ...

    async def all(self) -> list[StoredPolicy]:
        """Every version, oldest first."""
        ...
