"""This machine: interpreters and their modules, the store's folder, ports, Java for the demo."""

import errno
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from adaptd.daemon.doctor.findings import Finding, error, note, ok, warning
from adaptd.daemon.domain.memory import gib, memory_problem

_LIMIT_S = 60
_LOW_DISK_BYTES = 5 * 1024**3  # a base of 135 M, its snapshots and a dozen versions; more for more
_PROBE_BYTES = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What each extra must bring, by import name. Found without importing: torch alone takes seconds.
EXTRAS: dict[str, tuple[str, ...]] = {
    "daemon": ("aiokafka", "apscheduler", "duckdb", "fastapi", "faust", "pyarrow", "uvicorn"),
    "train": ("accelerate", "peft", "pyarrow", "torch", "transformers", "trl"),
    "serve-cpu": ("torch", "vllm"),
}
_REMEDIES = {
    "daemon": "pip install 'adaptd[daemon]'",
    "train": (
        "pip install 'adaptd[train]', or point ADAPTD_TRAINER_PYTHON at an interpreter that has it"
    ),
    "serve-cpu": (
        "Install vLLM as docs/dependencies.md says, or point ADAPTD_VLLM_PYTHON at an interpreter"
        " that has it"
    ),
}
_FIND = (
    "import importlib.util as u,sys;"
    "print(' '.join(m for m in sys.argv[1:] if u.find_spec(m) is None))"
)


def missing_modules(python: Path | str, modules: Iterable[str]) -> list[str] | str:
    """Modules that an interpreter lacks; a text where it cannot be started."""
    command = [str(python), "-c", _FIND, *modules]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return str(problem)
    return done.stdout.split() if done.returncode == 0 else done.stderr.strip()[-200:]


def judge_extra(extra: str, missing: list[str] | str) -> Finding:
    """Say whether one process can start with its interpreter."""
    remedy = _REMEDIES[extra]
    if isinstance(missing, str):
        return error(f"extra {extra}", f"the interpreter does not run ({missing})", remedy)
    if missing:
        return error(f"extra {extra}", f"not installed: {', '.join(missing)}", remedy)
    return ok(f"extra {extra}", f"installed: {', '.join(EXTRAS[extra])}")


def check_extras(
    trainer_python: Path | None, vllm_python: Path | None, *, manages_vllm: bool
) -> list[Finding]:
    """Every interpreter, asked for what its process imports."""
    asked = [
        ("daemon", sys.executable),
        ("train", trainer_python or sys.executable),
    ]
    if manages_vllm:
        asked.append(("serve-cpu", vllm_python or sys.executable))
    return [judge_extra(extra, missing_modules(python, EXTRAS[extra])) for extra, python in asked]


def check_home(home: Path) -> list[Finding]:
    """Check that the store's folder can be written, by writing to it, and has room."""
    nearest = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    if problem := _write_problem(nearest):
        what = f"{nearest} cannot be written ({problem.strerror}), {_free_bytes(nearest)}"
        remedy = "Change its owner, or set ADAPTD_HOME to another folder"
        if problem.errno in _NO_ROOM:
            remedy = "Make room, or set ADAPTD_HOME to a folder with some"
        return [error("store", what, remedy)]
    store = home / "store.duckdb"
    if store.exists() and (problem := _open_problem(store)):
        what = f"{store} cannot be written ({problem.strerror})"
        return [error("store", what, "Change its owner")]
    if shutil.disk_usage(nearest).free < _LOW_DISK_BYTES:
        what = f"only {_free_bytes(nearest)} at {nearest}"
        return [warning("store", what, "Make room: snapshots and adapters live there")]
    return [ok("store", f"{home} can be written, {_free_bytes(nearest)}")]


def judge_memory(needed: int, *, limit: int, available: int, runs: bool) -> Finding:
    """Say whether memory is enough for daemon, vLLM and trainer together.

    `runs`: they run already, so that what is free says nothing.
    """
    free = limit if runs else available
    if problem := memory_problem(needed, limit=limit, available=free):
        remedy = "End other programs, allow more, or take a smaller base or upstream.kv_cache_gib"
        return warning("memory", problem, remedy)
    return ok("memory", f"{gib(available)} of {gib(limit)} are free, about {gib(needed)} needed")


def _write_problem(folder: Path) -> OSError | None:
    """Try it: permissions say nothing of a full disk, one mounted read-only, or root's rights."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".adaptd-doctor-") as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as problem:
        return problem
    return None


def _open_problem(file: Path) -> OSError | None:
    try:
        file.open("r+b").close()
    except OSError as problem:
        return problem
    return None


def _free_bytes(folder: Path) -> str:
    free = shutil.disk_usage(folder).free
    return f"{free / 2**30:.1f} GiB free" if free >= 2**30 else f"{free / 2**20:.0f} MiB free"


def store_is_held(store: Path) -> bool:
    """True where another process has the store open. DuckDB takes the same kind of lock."""
    try:
        with store.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def port_is_taken(host: str, port: int) -> bool:
    """True where a process listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def judge_daemon(
    address: str, *, daemon_answers: bool, port_taken: bool, store_held: bool
) -> Finding:
    """Say whether a daemon runs, can start, or is kept from it."""
    if daemon_answers:
        return ok("daemon", f"a daemon answers at {address}")
    if port_taken:
        what = f"port in use: something that is not this daemon listens at {address}"
        return error("port", what, "Stop it, or set ADAPTD_LISTEN_PORT to a free port")
    if store_held:
        what = "another process holds the store, and no daemon answers here"
        return error("store", what, f"Find it with `fuser`, or set the address it has: {address}")
    return note("daemon", f"no daemon runs; {address} is free", "Start it with `adaptd run`")


def check_demo_tools() -> list[Finding]:
    """Java and Maven: only the demo's own broker needs them."""
    lacking = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if not lacking:
        return [ok("demo", "Java and Maven are there: the demo can start its own broker")]
    what = f"not found: {', '.join(lacking)}. The demo will run without a broker"
    return [note("demo", what, "Install Java 17 and Maven if you want the broker too")]
