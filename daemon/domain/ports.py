"""Ports: what the stages need from outside. `daemon.wiring` fills them in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from adaptd.daemon.domain.ingest import Decoded, Halt, LogRange, Partition, StoredOffset, Written
from adaptd.daemon.domain.receipts import Receipt
from adaptd.daemon.wire.routes import GatewayState, RouteTable


class HostInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a host is. `instance` changes with its process, so receipts do not outlive it.

    `dtype` is the number format it computes in, None where it does not say.
    """

    instance: str
    base: str
    max_model_len: int
    dtype: str | None = None


class AdapterHost(Protocol):
    """One vLLM server. None is the base model. Raises HostError where it refuses or is away."""

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
        """Natural-log probability of each token given those before it; the first is 0.0."""
        ...


class RoutePublisher(Protocol):
    """Every gateway, each asked even where another does not answer."""

    async def publish(self, table: RouteTable) -> Sequence[GatewayState]:
        """Put the table in force everywhere. Safe to repeat: it is the heartbeat.

        Raises:
            EpochError: a gateway holds another table under this epoch or a higher one.
            HostError: a gateway does not answer.
        """
        ...

    async def states(self) -> Sequence[GatewayState]:
        """Raises HostError where one does not answer."""
        ...

    async def tables(self) -> Sequence[RouteTable]:
        """What the gateways follow; one without a table is left out.

        Raises:
            HostError: one does not answer.
        """
        ...


class ReceiptCheck(Protocol):
    """Proves that the host applies a version before it is measured or gets traffic (D3)."""

    async def check(self, name: str) -> Receipt:
        """Load the version where it is absent, measure it and keep the receipt.

        Safe to repeat: a receipt of the host's present process is returned as it is, passed or not.

        Raises:
            HostError: the host is away or refuses to load the version.
        """
        ...


class EventSink(Protocol):
    """Where decoded events go: rows and the offsets they were read up to, at once (D4)."""

    async def offsets(self, source: str) -> Mapping[Partition, StoredOffset]: ...

    async def pin(self, source: str, starts: Mapping[Partition, LogRange]) -> None:
        """Store where reading of new partitions begins (`earliest`), before their first read.

        Safe to repeat: a partition that has an offset keeps it, and learns the ids it lacked.
        """
        ...

    async def write(self, decoded: Decoded) -> Written:
        """Store chunks. Safe to repeat: rows before the stored offsets are dropped.

        Raises:
            HaltError: a chunk starts after the stored offset, or its partition has none; nothing
                was stored.
            StoreError: the store cannot take it (disk, memory); nothing was stored.
        """
        ...

    async def resync(
        self,
        source: str,
        ranges: Mapping[Partition, LogRange],
        *,
        actor: str,
        reason: str,
        evidence: Any,
    ) -> None:
        """Accept a gap: go on from what the broker has, and forget partitions it no longer has."""
        ...


class HaltBook(Protocol):
    """Whether ingestion is halted. At most one halt is in force."""

    async def current(self) -> Halt | None: ...

    async def record(self, reason: str, detail: Any) -> None:
        """Halt, unless already halted."""
        ...

    async def note_end(self, reason: str) -> None:
        """Put on record why the process ends, without a halt: the next one reads on."""
        ...

    async def clear(self, *, actor: str, reason: str) -> bool:
        """Lift the halt in force; False where there is none."""
        ...
