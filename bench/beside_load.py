"""What runs beside a server in `make bench-beside`: clients, a busy process, the real trainer."""

import asyncio
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from adaptd.daemon.domain.bases import base_digest
from adaptd.daemon.training.job import Done, Job, TrainingProgress
from adaptd.daemon.training.launcher import start_child

ROOT = Path(__file__).parent.parent
BASE = ROOT / "var" / "bases" / "smollm2-135m"
SCRATCH = ROOT / "var" / "bench-beside"
DTYPE = "float32"
LIMIT_S = 12 * 60
ADAPTER = "support@v1-00000000"
_CLIENTS = 8
_HEARTBEAT_S = 1.0  # gateways tell the daemon once a second what they are answering
_ROWS_A_STEP = 16
_BATCH = 4  # a quarter of the demo's: windows of 15 s hold several


class Traffic:
    """Clients that each ask again once they are answered. `in_flight` is what a gateway counts."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._random = random.Random(1)  # noqa: S311 - tokens, no secrets
        self.in_flight = 0
        self.answered: list[tuple[float, float]] = []  # when, and after how long

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Requests while the block lasts. Those of its end are dropped."""
        async with (
            httpx.AsyncClient(base_url=self._url, timeout=120, trust_env=False) as http,
            asyncio.TaskGroup() as group,
        ):
            clients = [group.create_task(self._ask_on(http)) for _ in range(_CLIENTS)]
            yield
            for client in clients:
                client.cancel()

    async def _ask_on(self, http: httpx.AsyncClient) -> None:
        while True:
            body = {
                "model": ADAPTER,
                "prompt": [self._random.randrange(100, 40_000) for _ in range(60)],
                "max_tokens": self._random.randint(8, 16),
                "ignore_eos": True,
            }
            began = time.monotonic()
            self.in_flight += 1
            try:
                (await http.post("/v1/completions", json=body)).raise_for_status()
            finally:
                self.in_flight -= 1
            self.answered.append((time.monotonic(), time.monotonic() - began))

    def figures(self, since: float, until: float) -> dict[str, Any]:
        took = sorted(took for at, took in self.answered if since <= at <= until)
        return {
            "requests_per_s": round(len(took) / (until - since), 2),
            "p50_s": round(statistics.median(took), 2) if took else None,
            "p95_s": round(took[int(0.95 * len(took))], 2) if took else None,
        }


class Told:
    """The requests in flight as the daemon knows them: at its last heartbeat, or not at all."""

    def __init__(self) -> None:
        self.traffic: Traffic | None = None
        self._at = 0.0
        self._waiting: int | None = None

    def __call__(self) -> int | None:
        if time.monotonic() - self._at >= _HEARTBEAT_S:
            self._at = time.monotonic()
            self._waiting = self.traffic.in_flight if self.traffic else None
        return self._waiting


class Trainer:
    """The real child, and when it ended its steps."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.told = Told()
        self._warm = asyncio.Event()

    @asynccontextmanager
    async def running(
        self, *, niceness: int, threads: int, yields: bool, environment: Mapping[str, str]
    ) -> AsyncIterator[None]:
        """The child from its second step on, until the block ends."""
        job = a_job("run", niceness=niceness, threads=threads, steps=100_000)
        waiting = self.told if yields else None
        with exported(environment):
            async with start_child(job, waiting=waiting) as child, asyncio.TaskGroup() as group:
                result = group.create_task(
                    child.result(limit_s=LIMIT_S, on_progress=self._note, wanted=_always)
                )
                await asyncio.wait_for(self._warm.wait(), 120)
                yield
                result.cancel()

    async def _note(self, line: TrainingProgress) -> None:
        if line.phase == "training":
            self.steps.append(time.monotonic())
        if line.step == 2:
            self._warm.set()

    def steps_per_min(self, since: float, until: float) -> float:
        rows = _BATCH * sum(since <= at <= until for at in self.steps)
        return round(60 * rows / _ROWS_A_STEP / (until - since), 2)


async def _always() -> bool:
    return True


@contextmanager
def busy(niceness: int, grouped: bool) -> Iterator[None]:
    """A process that computes without end, in a session of its own."""
    words = [sys.executable, "-c", f"import os\nos.nice({niceness})\nwhile True: pass"]
    with subprocess.Popen(words, start_new_session=True) as process:
        try:
            if grouped:
                with contextlib.suppress(OSError):
                    Path(f"/proc/{process.pid}/autogroup").write_text(str(niceness))
            yield
        finally:
            process.kill()


@contextmanager
def exported(variables: Mapping[str, str]) -> Iterator[None]:
    """As an operator would export them: what adaptd starts keeps them."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def write_rows() -> Path:
    chance = random.Random(3)  # noqa: S311 - tokens, no secrets
    rows = [
        [chance.randrange(100, 40_000) for _ in range(chance.randint(56, 65))] for _ in range(128)
    ]
    masks = [[0] * (len(row) - 4) + [1] * 4 for row in rows]
    folder = SCRATCH / "snapshot"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"input_ids": rows, "loss_mask": masks}), folder / "train.parquet")
    probes = {"ids": rows[:4], "context_tokens": [len(row) - 4 for row in rows[:4]]}
    pq.write_table(pa.table(probes), folder / "probes.parquet")
    return folder


def a_job(name: str, **changes: Any) -> Job:
    directory = SCRATCH / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    job = Job(
        run_id=name,
        model="support",
        base="smollm2-135m",
        base_dir=str(BASE.resolve()),
        base_digest=base_digest(BASE),
        snapshot_id="s1",
        snapshot_hash="0" * 64,
        train_path=str(SCRATCH / "snapshot" / "train.parquet"),
        probes_path=str(SCRATCH / "snapshot" / "probes.parquet"),
        directory=str(directory),
        rank=8,
        alpha=16,
        targets=["q_proj", "v_proj"],
        learning_rate=1e-3,
        steps=2,
        batch=_BATCH,
        micro_batch=_BATCH,
        max_length=256,
        max_time_s=LIMIT_S,
        checkpoint_every=100_000,
        seed=1,
        threads=2,
        dtype=DTYPE,
    )
    return msgspec.structs.replace(job, **changes)


async def train_adapter() -> Done:
    async with start_child(a_job("adapter")) as child:

        async def unheard(_: TrainingProgress) -> None:
            pass

        return await child.result(limit_s=LIMIT_S, on_progress=unheard, wanted=_always)
