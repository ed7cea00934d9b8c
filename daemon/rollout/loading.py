"""Load and prove the versions that rollouts need, and unload those out of use."""

import asyncio
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import structlog

from adaptd.daemon.domain.ports import AdapterHost, HostInfo, ReceiptCheck
from adaptd.daemon.domain.states import AdapterState
from adaptd.daemon.store.lifecycle.adapters import AdapterRow, AdapterStore
from adaptd.daemon.store.lifecycle.receipts import ReceiptStore
from adaptd.daemon.wire.errors import HostError, RefusedError
from adaptd.daemon.wire.routes import VERSION_NAME

OUT_OF_USE = (
    AdapterState.RETIRED,
    AdapterState.QUARANTINED,
    AdapterState.TAINTED,
    AdapterState.ERASED,
)

_log = structlog.get_logger(__name__)


class AdapterLoader:
    """Versions on the host. A task of its own: the guard and the heartbeat never wait for it.

    `verified` are the versions that the host's present process has loaded and has a receipt of.
    `changed` is set whenever `verified` or the process changes.
    """

    def __init__(
        self,
        host: AdapterHost,
        checks: ReceiptCheck,
        receipts: ReceiptStore,
        adapters: AdapterStore,
        *,
        wanted: Callable[[], Sequence[str]],
        in_flight: Callable[[str], int | None],
    ) -> None:
        self._host = host
        self._checks = checks
        self._receipts = receipts
        self._adapters = adapters
        self._wanted = wanted
        self._in_flight = in_flight
        self.info: HostInfo | None = None
        self.verified: frozenset[str] = frozenset()
        self.problems: dict[str, str] = {}  # why a wanted version is not served
        self.changed = asyncio.Event()
        self._away = False

    async def look(self) -> bool:
        """Read which process the host is, and what is proven on it.

        False where it does not answer.
        """
        try:
            info = await self._host.describe()
            if self.info is None or info.instance != self.info.instance:
                await self._take_up_process(info)
        except HostError as error:
            if not self._away:  # once, not at every tick of a start that takes a minute
                _log.info("host_silent", error=str(error))
            self._away = True
            return False
        self._away = False
        return True

    async def _take_up_process(self, info: HostInfo) -> None:
        """Take up another process of the host."""
        loaded = await self._host.loaded()
        self.verified = loaded & await self._receipts.passed_on(info.instance)
        self.info = info
        self.changed.set()
        _log.info("host_process_found", instance=info.instance, base=info.base)

    async def run(self, every_s: float) -> None:
        """Work until cancelled."""
        while True:
            await self.tick()
            await asyncio.sleep(every_s)

    async def tick(self) -> None:
        """Load and prove what is wanted, unload what is out of use and drained. Safe to repeat."""
        if not await self.look():
            return
        try:
            loaded = await self._host.loaded()
            self._note_numbers(loaded)
            self._drop_verified(self.verified - loaded)
            wanted = self._wanted()
            self.problems = {name: self.problems[name] for name in wanted if name in self.problems}
            for name in wanted:
                await self._load_and_prove(name, loaded)
            await self._unload_unused(loaded)
        except HostError as error:
            _log.warning("host_failed", error=str(error))

    async def _load_and_prove(self, name: str, loaded: frozenset[str]) -> None:
        """Load and prove one version.

        A version that the host refuses does not hold up the others.
        """
        if name in loaded and name in self.verified:
            return
        try:
            row = await self._adapters.get(name)
            await self._host.load(name, Path(row.path))
            receipt = await self._checks.check(name)
        except (HostError, RefusedError) as error:
            self._note_problem(name, str(error))
            return
        if not receipt.passed:
            self._note_problem(name, f"no swap receipt: {receipt.reason}")
            return
        self.problems.pop(name, None)
        if self.info and receipt.instance == self.info.instance:
            self.verified |= {name}
        self.changed.set()

    def _note_problem(self, name: str, problem: str) -> None:
        if self.problems.get(name) == problem:  # told once, not at every tick
            return
        _log.error("version_not_served", adapter=name, problem=problem)
        self.problems[name] = problem
        self.changed.set()

    async def _unload_unused(self, loaded: frozenset[str]) -> None:
        wanted = set(self._wanted())
        for row in await self._adapters.list():
            if row.name in loaded - wanted and self._is_done(row):
                await self._host.unload(row.name)
                self._drop_verified({row.name})
                _log.info("version_unloaded", adapter=row.name, state=row.state)

    def _drop_verified(self, names: AbstractSet[str]) -> None:
        """Drop versions that the host no longer has.

        They get no traffic until they are loaded again.
        """
        if gone := self.verified & names:
            self.verified -= gone
            self.changed.set()

    def _is_done(self, row: AdapterRow) -> bool:
        """Out of use, and no gateway has a request left on it."""
        return row.state in OUT_OF_USE and self._in_flight(row.name) == 0

    def _note_numbers(self, loaded: frozenset[str]) -> None:
        """Raise the floors: a restored store must not issue a number that the host still knows
        (D1).
        """
        for name in loaded:
            if match := VERSION_NAME.match(name):
                self._adapters.raise_floor(match["alias"], int(match["number"]))
