"""Ports of the parts that bring events again. `daemon.wiring` fills them in."""

from collections.abc import Sequence
from typing import Any, Protocol

from adaptd.daemon.domain.dead_letters import LetterChoice, LetterCursor, Redriven
from adaptd.daemon.domain.replays import Replay, ReplayRequest
from adaptd.daemon.wire.tokens import Principal


class RereadingPort(Protocol):
    """Every method raises RefusedError where what is asked makes no sense."""

    async def begin_replay(self, asked: ReplayRequest, *, actor: str, reason: str) -> Replay: ...

    async def cancel_replay(self, replay_id: str, *, actor: str, reason: str) -> Replay: ...

    async def replay(self, replay_id: str) -> Replay: ...

    async def replays(self, *, limit: int) -> Sequence[Replay]: ...

    async def import_lines(self, digest: str, body: bytes, principal: Principal) -> Any: ...

    async def redrive(
        self, choice: LetterChoice
    ) -> tuple[Sequence[Redriven], LetterCursor | None]: ...
