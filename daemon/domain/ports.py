"""What the stages need from outside. `daemon.app` fills these in; tests/fakes.py holds their fakes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from daemon.domain.receipts import Receipt
from daemon.domain.routes import GatewayState, RouteTable


class HostInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a serving host is. `instance` changes when its process does, so receipts do not outlive it."""

    instance: str
    base: str
    max_model_len: int


class AdapterHost(Protocol):
    """One vLLM server. A model of None is the base. Raises HostError where it refuses or is away."""

    async def describe(self) -> HostInfo: ...

    async def load(self, name: str, path: Path) -> None:
        """Register an adapter version. Safe to repeat with the same name and path."""
        ...

    async def unload(self, name: str) -> None:
        """Forget a version. Safe to repeat."""
        ...

    async def loaded(self) -> frozenset[str]: ...

    async def generate(
        self, model: str | None, prompts: Sequence[Sequence[int]], *, max_tokens: int
    ) -> list[str]:
        """Greedy continuations of token-id prompts, in order, without special tokens."""
        ...

    async def logprobs(
        self, model: str | None, sequences: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Natural-log probability of every token given those before it; the first is 0.0 by convention."""
        ...


class RoutePublisher(Protocol):
    """Every gateway. Raises HostError where one does not answer; safe to repeat (it is the heartbeat)."""

    async def publish(self, table: RouteTable) -> Sequence[GatewayState]: ...


class ReceiptCheck(Protocol):
    """Proves that the host applies a version before anything is measured on it or sent to it (D3)."""

    async def check(self, name: str) -> Receipt:
        """Load the version where it is absent, measure it and keep the receipt.

        Safe to repeat: a receipt of the host's present process is returned as it is, passed or not.

        Raises:
            HostError: the host is away or refuses to load the version.
        """
        ...
