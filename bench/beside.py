"""`make bench-beside`: serving beside other work on the same cores. bench/results/beside.json.

vLLM serves the 135M base with an adapter to eight clients (60 tokens in, 8 to 16 out). Beside it
runs nothing, a busy process, or the trainer on rows as long as the demo's. Each row is one window
after a few seconds of warming up. `spin` is how the OpenMP runtime waits by default; `passive` puts
threads to sleep at once. A busy process has a session of its own; `grouped` tells the scheduling
group of that session its niceness too, as our trainer does. Steps are of 16 rows. Bounded to 12
minutes: what comes too late is left out.
"""

import asyncio
import contextlib
import json
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

from adaptd.daemon.demo.broker import free_port
from adaptd.daemon.domain.bases import base_digest
from adaptd.daemon.settings import Settings
from adaptd.daemon.training.job import Done, Job, TrainingProgress
from adaptd.daemon.training.launcher import start
from adaptd.daemon.wiring.installation import Base, engine_settings
from adaptd.serving.host.supervisor import EngineSupervisor
from adaptd.serving.host.vllm_client import VllmHost
from bench.machine import machine

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results" / "beside.json"
BASE = ROOT / "var" / "bases" / "smollm2-135m"
_SCRATCH = ROOT / "var" / "bench-beside"
_DTYPE = "float32"
_LIMIT_S = 12 * 60
_WARM_S, _WINDOW_S, _TRAINER_ALONE_S = 3, 15, 12
_CLIENTS = 8
_HEARTBEAT_S = 1.0  # gateways tell the daemon once a second what they are answering
_ROWS_A_STEP = 16
_BATCH = 4  # a quarter of the demo's: windows of 15 s hold several
_NAME = "support@v1-00000000"

SPIN = {"GOMP_SPINCOUNT": "300000"}  # libgomp's own default
PASSIVE: dict[str, str] = {}  # adaptd's
_WORKER = ("--distributed-executor-backend", "mp")  # vLLM's own default on a CPU


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One way to start vLLM, by name."""

    name: str
    exported: Mapping[str, str] = PASSIVE
    extra_args: tuple[str, ...] = ()


BEFORE = "worker process, spins"
OURS = "one process, passive"
SERVERS = [
    Server(name=BEFORE, exported=SPIN, extra_args=_WORKER),
    Server(name="worker process, passive", extra_args=_WORKER),
    Server(name="one process, spins", exported=SPIN),
    Server(name=OURS),
    Server(name="one process, passive, one thread", exported={"OMP_NUM_THREADS": "1"}),
]


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """What runs beside a server. `niceness` of the trainer is its scheduling group's too."""

    name: str
    busy: tuple[int, bool] | None = None  # niceness, grouped
    trainer: Mapping[str, str] | None = None  # its environment
    niceness: int = 0
    threads: int = 2
    yields: bool = False
    alone: bool = False  # measure the trainer without requests too


_CHANGED = msgspec.structs.replace
_NOTHING = Beside(name="nothing")
_BUSY = Beside(name="busy, nice 0", busy=(0, False))
_BUSY_NICE = Beside(name="busy, nice 19", busy=(19, False))
_TRAINER = Beside(name="trainer", trainer=PASSIVE, niceness=5, alone=True)
_YIELDS = _CHANGED(_TRAINER, name="trainer, yields", yields=True, alone=False)
ROWS: dict[str, list[Beside]] = {
    BEFORE: [
        _NOTHING,
        _BUSY,
        _BUSY_NICE,
        Beside(name="trainer that spins", trainer=SPIN, alone=True),
    ],
    "worker process, passive": [_NOTHING, _BUSY],
    "one process, spins": [_NOTHING, _BUSY],
    OURS: [
        _NOTHING,
        _BUSY,
        _BUSY_NICE,
        _TRAINER,
        _YIELDS,
        _CHANGED(_YIELDS, name="trainer, one thread, yields", threads=1, alone=True),
    ],
    "one process, passive, one thread": [_NOTHING, _CHANGED(_TRAINER, alone=False)],
}


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


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
                "model": _NAME,
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
    async def running(self, beside: Beside) -> AsyncIterator[None]:
        """The child from its second step on, until the block ends."""
        job = a_job("run", niceness=beside.niceness, threads=beside.threads, steps=100_000)
        waiting = self.told if beside.yields else None
        with exported(beside.trainer or {}):
            async with start(job, waiting=waiting) as child, asyncio.TaskGroup() as group:
                result = group.create_task(
                    child.result(limit_s=_LIMIT_S, on_progress=self._note, wanted=_always)
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


async def measure(url: str, beside: Beside) -> dict[str, Any]:
    """One row: a window of requests beside one thing, and the steps of the trainer in it."""
    traffic, trainer = Traffic(url), Trainer()
    found: dict[str, Any] = {"beside": beside.name}
    async with contextlib.AsyncExitStack() as stack:
        if beside.busy is not None:
            stack.enter_context(busy(*beside.busy))
        if beside.trainer is not None:
            await stack.enter_async_context(trainer.running(beside))
            if beside.alone:
                began = time.monotonic()
                await asyncio.sleep(_TRAINER_ALONE_S)
                found["steps_per_min_alone"] = trainer.steps_per_min(began, time.monotonic())
            trainer.told.traffic = traffic
        await stack.enter_async_context(traffic.flowing())
        await asyncio.sleep(_WARM_S)
        began = time.monotonic()
        window_s = _WINDOW_S if beside.trainer is None else 2 * _WINDOW_S
        await asyncio.sleep(window_s)
        ended = time.monotonic()
        found |= traffic.figures(began, ended)
        if beside.trainer is not None:
            found["steps_per_min"] = trainer.steps_per_min(began, ended)
    _say(json.dumps(found))
    return found


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


@asynccontextmanager
async def serving(server: Server, adapter: Path) -> AsyncIterator[str]:
    """vLLM as adaptd starts it, with the adapter; its address."""
    url = f"http://127.0.0.1:{free_port()}"
    settings = msgspec.structs.replace(
        engine_settings(Settings.model_construct(), Base("base", BASE)),
        gateway_config=None,
        url=url,
        dtype=_DTYPE,
        extra_args=server.extra_args,
    )
    async with EngineSupervisor(settings, home=_SCRATCH / "home") as supervisor:
        try:
            with exported(server.exported):
                await supervisor.ensure()
            async with VllmHost(url) as host:
                await host.load(_NAME, adapter)
                await host.generate(_NAME, [[1, 2, 3]], max_tokens=1)
            yield url
        finally:
            await supervisor.stop()


def write_rows() -> Path:
    chance = random.Random(3)  # noqa: S311 - tokens, no secrets
    rows = [
        [chance.randrange(100, 40_000) for _ in range(chance.randint(56, 65))] for _ in range(128)
    ]
    masks = [[0] * (len(row) - 4) + [1] * 4 for row in rows]
    folder = _SCRATCH / "snapshot"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"input_ids": rows, "loss_mask": masks}), folder / "train.parquet")
    probes = {"ids": rows[:4], "context_tokens": [len(row) - 4 for row in rows[:4]]}
    pq.write_table(pa.table(probes), folder / "probes.parquet")
    return folder


def a_job(name: str, **changes: Any) -> Job:
    directory = _SCRATCH / name
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
        train_path=str(_SCRATCH / "snapshot" / "train.parquet"),
        probes_path=str(_SCRATCH / "snapshot" / "probes.parquet"),
        directory=str(directory),
        rank=8,
        alpha=16,
        targets=["q_proj", "v_proj"],
        learning_rate=1e-3,
        steps=2,
        batch=_BATCH,
        micro_batch=_BATCH,
        max_length=256,
        max_time_s=_LIMIT_S,
        checkpoint_every=100_000,
        seed=1,
        threads=2,
        dtype=_DTYPE,
    )
    return msgspec.structs.replace(job, **changes)


async def train_adapter() -> Done:
    async with start(a_job("adapter")) as child:

        async def unheard(_: TrainingProgress) -> None:
            pass

        return await child.result(limit_s=_LIMIT_S, on_progress=unheard, wanted=_always)


async def measure_all() -> list[dict[str, Any]]:
    """Every row of every server, for as long as there is time."""
    found: list[dict[str, Any]] = []
    began = time.monotonic()
    adapter = Path((await train_adapter()).path)
    for server in SERVERS:
        if time.monotonic() - began > _LIMIT_S - 90:
            break
        async with serving(server, adapter) as url:
            _say(f"{server.name}: {time.monotonic() - began:.0f} s")
            for beside in ROWS[server.name]:
                if time.monotonic() - began > _LIMIT_S - 60:
                    break
                found += [{"server": server.name} | await measure(url, beside)]
    _say(f"{time.monotonic() - began:.0f} s")
    return found


def figures_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is claimed, as ratios within the run; a figure whose rows are missing is left out."""
    found = {(row["server"], row["beside"]): row for row in rows}

    def ratio(what: tuple[str, str, str], to: tuple[str, str, str]) -> float | None:
        values = [found.get(key[:2], {}).get(key[2]) for key in (what, to)]
        return round(values[0] / values[1], 2) if values[0] is not None and values[1] else None

    rate, steps = "requests_per_s", "steps_per_min"
    alone = (OURS, "nothing", rate)
    wanted = [
        ("alone, against before", ratio(alone, (BEFORE, "nothing", rate)), 1.0, 1.3),
        ("beside a busy process, against alone", ratio((OURS, _BUSY.name, rate), alone), 0.4, 0.5),
        (
            "beside one at nice 19, against alone",
            ratio((OURS, _BUSY_NICE.name, rate), alone),
            0.4,
            0.5,
        ),
        ("beside the trainer, against alone", ratio((OURS, _YIELDS.name, rate), alone), 0.6, 0.8),
        (
            "the trainer beside requests, against alone",
            ratio((OURS, _YIELDS.name, steps), (OURS, _TRAINER.name, f"{steps}_alone")),
            0.15,
            0.25,
        ),
    ]
    return [
        {
            "figure": name,
            "value": value,
            "unit": "x",
            "must": must,
            "aim": aim,
            "holds": value >= must,
            "aim_met": value >= aim,
        }
        for name, value, must, aim in wanted
        if value is not None
    ]


def table_of(rows: list[dict[str, Any]], figures: list[dict[str, Any]]) -> str:
    """The rows and figures as Markdown, as docs/benchmarks.md has them."""
    columns = ("server", "beside", "requests_per_s", "p50_s", "p95_s", "steps_per_min_alone")
    lines = _table([*columns, "steps_per_min"], rows)
    return "\n".join([*lines, "", *_table(["figure", "value", "must", "aim", "holds"], figures)])


def _table(columns: list[str], rows: list[dict[str, Any]]) -> list[str]:
    def line(cells: list[Any]) -> str:
        return "| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |"

    body = [line([row.get(column) for column in columns]) for row in rows]
    return [line(list(columns)), line(["---"] * len(columns)), *body]


def main() -> None:
    shutil.rmtree(_SCRATCH, ignore_errors=True)
    write_rows()
    try:
        rows = asyncio.run(measure_all())
    finally:
        shutil.rmtree(_SCRATCH, ignore_errors=True)
    figures = figures_of(rows)
    found = {"machine": machine(), "figures": figures, "rows": rows}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    sys.stdout.write(f"{table_of(rows, figures)}\n")
    sys.exit(not all(figure["holds"] for figure in figures))


if __name__ == "__main__":
    main()
