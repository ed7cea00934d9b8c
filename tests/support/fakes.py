"""Fakes of our ports. Each passes the same contract test as the real one (tests/integration)."""

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from adaptd.daemon.domain.ports import HostInfo
from adaptd.daemon.wire.errors import EpochError, HostError
from adaptd.daemon.wire.routes import GatewayState, RouteTable

Answer = Callable[[str | None, Sequence[int]], str]


class FakeHost:
    """A vLLM server without vLLM: implements `AdapterHost`.

    Log-probs are made from the ids and the version's name, so they are always the same. `strength`
    says how much of its change a version applies: 1 is as trained, 0 is "matches no module".
    """

    def __init__(self, *, base: str = "base", max_model_len: int = 1024) -> None:
        self.starts = 1
        self.base = base
        self.max_model_len = max_model_len
        self.away = False
        self.refuses: set[str] = set()
        self.strength: dict[str, float] = {}
        self.answer: Answer = lambda model, prompt: ""
        self.adapters: dict[str, Path] = {}
        self.loads: list[str] = []

    def restart(self) -> None:
        """A new process: nothing is loaded any more."""
        self.starts += 1
        self.adapters.clear()

    async def describe(self) -> HostInfo:
        self._check()
        return HostInfo(
            instance=f"instance-{self.starts}", base=self.base, max_model_len=self.max_model_len
        )

    async def load(self, name: str, path: Path) -> None:
        self._check()
        if name in self.refuses:
            raise HostError("host", f"it refuses {name}", "Look at its log")
        if self.adapters.get(name, path) != path:
            raise HostError("host", f"{name} is loaded from elsewhere", "Give it another name")
        self.adapters[name] = path
        self.loads.append(name)

    async def unload(self, name: str) -> None:
        self._check()
        self.adapters.pop(name, None)

    async def loaded(self) -> frozenset[str]:
        self._check()
        return frozenset(self.adapters)

    async def generate(
        self, model: str | None, prompts: Sequence[Sequence[int]], *, max_tokens: int
    ) -> list[str]:
        self._check(model)
        return [self.answer(model, prompt) for prompt in prompts]

    async def logprobs(
        self, model: str | None, sequences: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        self._check(model)
        strength = self.strength.get(model or "", 1.0)
        return [_scores(model, ids, strength).tolist() for ids in sequences]

    def _check(self, model: str | None = None) -> None:
        if self.away:
            raise HostError("host", "it does not answer", "Start it")
        if model is not None and model not in self.adapters:
            raise HostError("host", f"it has no model {model}", "Load it")


def write_probes(
    directory: Path, name: str, content_hash: str, *, count: int = 8, tokens: int = 24
) -> None:
    """probes.json and its seal, as a trainer would leave them for a version FakeHost serves."""
    probes = []
    for k in range(count):
        ids = [(31 * k + 7 * i) % 997 for i in range(tokens)]
        base, adapter = _scores(None, ids, 1.0), _scores(name, ids, 1.0)
        scored = {"base": base.tolist(), "adapter": adapter.tolist()}
        probes.append({"ids": ids, "context_tokens": tokens - 4} | scored)
    directory.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"probes": probes})
    (directory / "probes.json").write_text(text)
    files = {"probes.json": hashlib.sha256(text.encode()).hexdigest()}
    seal = json.dumps({"content_hash": content_hash, "files": files})
    (directory / "manifest.json").write_text(seal)


def _scores(model: str | None, ids: Sequence[int], strength: float) -> np.ndarray:
    scores = -_random("base", ids).gamma(1.0, 2.0, len(ids))
    if model is not None:
        scores += strength * _random(model, ids).normal(0, 1, len(ids))
    scores[:1] = 0.0
    return scores


def _random(name: str, ids: Sequence[int]) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(f"{name} {list(ids)}".encode()))


class FakePublisher:
    """One gateway in memory: implements `RoutePublisher`. `table` is what it follows."""

    def __init__(self, *, epoch: int = 0) -> None:
        self.table: RouteTable | None = RouteTable(epoch=epoch, base="base") if epoch else None
        self.away = False
        self.in_flight: dict[str, int] = {}
        self.heard: list[RouteTable] = []

    async def publish(self, table: RouteTable) -> Sequence[GatewayState]:
        self._check()
        mine = self.table
        if mine is not None and table != mine and table.epoch <= mine.epoch:
            raise EpochError("gateway", mine.epoch)
        self.table = table
        self.heard.append(table)
        return await self.states()

    async def states(self) -> Sequence[GatewayState]:
        self._check()
        epoch = self.table.epoch if self.table else 0
        return [GatewayState(gateway="g1", epoch=epoch, in_flight=dict(self.in_flight))]

    async def tables(self) -> Sequence[RouteTable]:
        self._check()
        return [self.table] if self.table else []

    def _check(self) -> None:
        if self.away:
            raise HostError("gateway", "it does not answer", "Start it")
