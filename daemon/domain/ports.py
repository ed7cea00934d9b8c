"""Ports of the domain: needs that one stage has of another. `daemon.wiring` fills them in.

A Protocol that only one room needs stands in that room.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from adaptd.daemon.domain.dead_letters import DeadLetter, LetterChoice, LetterCursor, Redriven
from adaptd.daemon.domain.erasures import Erasure, Person
from adaptd.daemon.domain.ingest import Decoded, Halt, LogRange, Partition, StoredOffset, Written
from adaptd.daemon.domain.receipts import Receipt
from adaptd.daemon.domain.replays import Replay, ReplayRequest, ReplayState
from adaptd.daemon.wire.routes import GatewayState, RouteTable
from adaptd.daemon.wire.tokens import Principal


class HostInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Identity of a host. `instance` changes with its process, so receipts do not outlive it.

    `dtype` is the number format that the host computes in, None where it does not say.
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
        """Return greedy continuations of token-id prompts, in order, without special tokens."""
        ...

    async def logprobs(
        self, model: str | None, sequences: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Return each token's natural-log probability given those before; the first is 0.0."""
        ...


class RoutePublisher(Protocol):
    """All gateways. One that does not answer does not keep the others from being asked."""

    async def publish(self, table: RouteTable) -> Sequence[GatewayState]:
        """Put the table in force everywhere. Safe to repeat: it is the heartbeat.

        Raises:
            EpochError: a gateway holds another table under this epoch or a higher one.
            HostError: a gateway does not answer.
        """
        ...

    async def states(self) -> Sequence[GatewayState]:
        """Ask every gateway how it is. Raises HostError where one does not answer."""
        ...

    async def tables(self) -> Sequence[RouteTable]:
        """Read the tables that the gateways follow; one without a table is left out.

        Raises:
            HostError: a gateway does not answer.
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
    """Store of decoded events: rows and the offsets read so far, in one transaction (D4)."""

    async def offsets(self, source: str) -> Mapping[Partition, StoredOffset]: ...

    async def pin(self, source: str, starts: Mapping[Partition, LogRange]) -> None:
        """Store the beginning of new partitions (`earliest`) before their first read.

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
        """Accept a gap: go on with the broker's offsets, and drop partitions that it lost."""
        ...


class HaltBook(Protocol):
    """Halts of ingestion. At most one is in force."""

    async def current(self) -> Halt | None: ...

    async def record(self, reason: str, detail: Any) -> None:
        """Halt, unless already halted."""
        ...

    async def note_end(self, reason: str) -> None:
        """Record why the process ends, without a halt: the next process reads on."""
        ...

    async def clear(self, *, actor: str, reason: str) -> bool:
        """Lift the halt in force; False where there is none."""
        ...


class LetterBook(Protocol):
    """Store of dead letters."""

    async def waiting(
        self, choice: LetterChoice, *, limit: int, max_bytes: int
    ) -> tuple[Sequence[DeadLetter], LetterCursor | None]:
        """Read letters with their bytes, oldest first, less those redriven; and where to go on."""
        ...

    async def settle(self, results: Sequence[Redriven], *, dead_again: Sequence[str]) -> None:
        """Record the outcomes; drop the copies that the sink made of `dead_again`."""
        ...

    async def unpublished(self, *, limit: int, max_bytes: int) -> Sequence[DeadLetter]:
        """Read those not in Kafka's topic, with their bytes, oldest first."""
        ...

    async def mark_published(self, letters: Sequence[DeadLetter]) -> None: ...


class ReplayBook(Protocol):
    """Store of replays. Their progress is in the offsets of their source."""

    async def add(self, replay: Replay) -> None: ...

    async def next_running(self) -> Replay | None:
        """Return the oldest that is not finished."""
        ...

    async def get(self, replay_id: str) -> Replay:
        """Return one. Raises RefusedError where there is none."""
        ...

    async def list(self, *, limit: int = 50) -> list[Replay]:
        """Return the newest first."""
        ...

    async def note(self, replay_id: str, problem: str | None) -> None:
        """Record why a replay waits; None: it goes on."""
        ...

    async def finish(
        self, replay_id: str, state: ReplayState, *, actor: str, problem: str | None = None
    ) -> bool:
        """End a running one; False where it has ended already."""
        ...


class RereadingPort(Protocol):
    """Events brought again. Every method raises RefusedError where the request makes no sense."""

    async def begin_replay(self, asked: ReplayRequest, *, actor: str, reason: str) -> Replay: ...

    async def cancel_replay(self, replay_id: str, *, actor: str, reason: str) -> Replay: ...

    async def replay(self, replay_id: str) -> Replay: ...

    async def replays(self, *, limit: int) -> Sequence[Replay]: ...

    async def import_lines(self, digest: str, body: bytes, principal: Principal) -> Any: ...

    async def redrive(
        self, choice: LetterChoice
    ) -> tuple[Sequence[Redriven], LetterCursor | None]: ...


class ErasurePort(Protocol):
    """Erasures that an operator asks for. `actor` is the name that the history keeps."""

    async def begin(self, person: Person, *, reason: str, actor: str) -> Erasure:
        """Erase a person. Safe to repeat: one that is under way is returned as it is."""
        ...

    async def preview(self, person: Person) -> dict[str, Any]:
        """Report what would be erased and what is outside our reach; changes nothing."""
        ...

    async def lift(self, person: Person, *, reason: str, actor: str) -> int:
        """Store events of the person again from now on. Returns the number of erasures lifted."""
        ...

    async def list(self, limit: int = 50) -> "list[Erasure]":
        """Return the newest first."""
        ...

    async def get(self, erasure_id: str) -> Erasure:
        """Return one. Raises RefusedError where there is none."""
        ...
