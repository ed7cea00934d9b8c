"""The demo's waits: as long as something moves, and not past the bound of the whole."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from daemon.demo.world import DemoError, World
from daemon.domain.patience import Patience

T = TypeVar("T")
STILL_S = 300.0  # on the reference machine; 48 probes of a receipt take 20 s there, and say nothing


@dataclass(frozen=True)
class Waits:
    """Ends a wait once nothing it looks at has moved for `still_s`, or where the daemon is gone."""

    world: World
    still_s: float
    poll_s: float = 0.5
    clock: Callable[[], float] = time.monotonic

    async def until(self, what: str, found: Callable[[Patience], Awaitable[T | None]]) -> T:
        """Ask until there is an answer. `found` shows the patience what it saw.

        Raises:
            DemoError: nothing moved any more, or the daemon ended.
        """
        patience = Patience(self.still_s, clock=self.clock)
        while (result := await found(patience)) is None:
            self._check(what, patience)
            await asyncio.sleep(self.poll_s)
        return result

    async def end_of(
        self, what: str, work: Awaitable[T], seen: Callable[[], Mapping[str, object]]
    ) -> T:
        """Wait for work of this process. `seen` is what it has done so far.

        Raises:
            DemoError: nothing moved any more, or the daemon ended.
        """
        task = asyncio.ensure_future(work)
        patience = Patience(self.still_s, clock=self.clock)
        try:
            while not (await asyncio.wait([task], timeout=self.poll_s))[0]:
                patience.saw(**seen())
                self._check(what, patience)
            return task.result()
        finally:
            task.cancel()

    def _check(self, what: str, patience: Patience) -> None:
        see = f"See {self.world.daemon_log}"
        if self.world.daemon_died():
            raise DemoError("daemon", "it ended by itself", see)
        if patience.is_over:
            raise DemoError("demo", f"{what}: {patience.words}", see)
