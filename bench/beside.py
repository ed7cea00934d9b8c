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
import shutil
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from adaptd.daemon.demo.broker import free_port
from adaptd.daemon.settings import Settings
from adaptd.daemon.wiring.installation import Base, engine_settings
from adaptd.serving.host.supervisor import EngineSupervisor
from adaptd.serving.host.vllm_client import VllmHost
from bench.beside_load import (
    ADAPTER,
    BASE,
    DTYPE,
    LIMIT_S,
    ROOT,
    SCRATCH,
    Traffic,
    Trainer,
    busy,
    exported,
    train_adapter,
    write_rows,
)
from bench.machine import machine

RESULTS = ROOT / "bench" / "results" / "beside.json"
_WARM_S, _WINDOW_S, _TRAINER_ALONE_S = 3, 15, 12

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


async def measure(url: str, beside: Beside) -> dict[str, Any]:
    """One row: a window of requests beside one thing, and the steps of the trainer in it."""
    traffic, trainer = Traffic(url), Trainer()
    found: dict[str, Any] = {"beside": beside.name}
    async with contextlib.AsyncExitStack() as stack:
        if beside.busy is not None:
            stack.enter_context(busy(*beside.busy))
        if beside.trainer is not None:
            await stack.enter_async_context(
                trainer.running(
                    niceness=beside.niceness,
                    threads=beside.threads,
                    yields=beside.yields,
                    environment=beside.trainer,
                )
            )
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


@asynccontextmanager
async def serving(server: Server, adapter: Path) -> AsyncIterator[str]:
    """vLLM as adaptd starts it, with the adapter; its address."""
    url = f"http://127.0.0.1:{free_port()}"
    settings = msgspec.structs.replace(
        engine_settings(Settings.model_construct(), Base("base", BASE)),
        gateway_config=None,
        url=url,
        dtype=DTYPE,
        extra_args=server.extra_args,
    )
    async with EngineSupervisor(settings, home=SCRATCH / "home") as supervisor:
        try:
            with exported(server.exported):
                await supervisor.ensure()
            async with VllmHost(url) as host:
                await host.load(ADAPTER, adapter)
                await host.generate(ADAPTER, [[1, 2, 3]], max_tokens=1)
            yield url
        finally:
            await supervisor.stop()


async def measure_all() -> list[dict[str, Any]]:
    """Every row of every server, for as long as there is time."""
    found: list[dict[str, Any]] = []
    began = time.monotonic()
    adapter = Path((await train_adapter()).path)
    for server in SERVERS:
        if time.monotonic() - began > LIMIT_S - 90:
            break
        async with serving(server, adapter) as url:
            _say(f"{server.name}: {time.monotonic() - began:.0f} s")
            for beside in ROWS[server.name]:
                if time.monotonic() - began > LIMIT_S - 60:
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
    shutil.rmtree(SCRATCH, ignore_errors=True)
    write_rows()
    try:
        rows = asyncio.run(measure_all())
    finally:
        shutil.rmtree(SCRATCH, ignore_errors=True)
    figures = figures_of(rows)
    found = {"machine": machine(), "figures": figures, "rows": rows}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    sys.stdout.write(f"{table_of(rows, figures)}\n")
    sys.exit(not all(figure["holds"] for figure in figures))


if __name__ == "__main__":
    main()
