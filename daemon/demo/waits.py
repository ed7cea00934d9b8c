"""The demo's waits: as long as something moves, and not past the bound of the whole."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from adaptd.daemon.demo.world import DemoError, DemoWorld
from adaptd.daemon.domain.patience import Patience

T = TypeVar("T")
_LOOK_S = 25.0  # one request of a look may take 20; above 30 a Patience takes us for stopped
STILL_S = 300.0  # on the reference machine; 48 probes of a receipt take 20 s there, and say nothing


@dataclass(frozen=True)
class Waits:
    """Ends a wait once nothing it looks at has moved for `still_s`, or where the daemon is gone."""

    world: DemoWorld
    still_s: float
    poll_s: float = 0.5
    look_s: float = _LOOK_S
    clock: Callable[[], float] = time.monotonic

    async def until(self, what: str, found: Callable[[Patience], Awaitable[T | None]]) -> T:
        """Ask until there is an answer. `found` shows the patience what it saw.

        A look that takes longer than `look_s` is cut off and has seen nothing.

        Raises:
            DemoError: nothing moved any more, or the daemon ended.
        """
        patience = Patience(self.still_s, clock=self.clock)
        while True:
            patience.saw()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.look_s):
                    if (result := await found(patience)) is not None:
                        return result
            self._check_stall(what, patience)
            await asyncio.sleep(self.poll_s)

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
                self._check_stall(what, patience)
            return task.result()
        finally:
            task.cancel()

    def _check_stall(self, what: str, patience: Patience) -> None:
        see = f"See {self.world.daemon_log}"
        if self.world.daemon_died():
            raise DemoError("daemon", "it ended by itself", see)
        if patience.is_over:
            raise DemoError("demo", f"{what}: {patience.words}", see)
