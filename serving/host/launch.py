"""How a vLLM server is started: command line, environment, and what its log says. Pure."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from adaptd import IMPORT_ROOT
from adaptd.daemon.wire.errors import SettingsError
from adaptd.serving.gateway.settings import CONFIG_VARIABLE

GATEWAY_CLASS = "adaptd.serving.middleware.Gateway"
# vLLM's CPU kernels look up the slot of "no adapter", -1, like any other: in a batch that mixes
# base and adapters the base gets what lies in the last slot. We never fill that one: slots are
# taken from the first on, and `serving.gateway.free_slots` empties those of unloaded adapters.
SPARE_LORAS = 1
_API_SERVERS = "--api-server-count"
_WORKERS = ("--distributed-executor", "--tensor-parallel", "--pipeline-parallel", "-tp", "-pp")


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One vLLM server. What it is started with bounds what the trainer may produce.

    `python` runs it and must have vLLM and adaptd's base install. `base_name` is the name the base
    is served under. `gateway_config` None starts it without the gateway. What a `dtype` of auto is,
    the one who starts the server decides.
    """

    url: str
    python: Path
    base_name: str
    base_dir: Path
    gateway_config: Path | None = None
    entry_point: tuple[str, ...] = ("-m", "vllm.entrypoints.openai.api_server")
    dtype: str = "auto"
    max_model_len: int = 1024
    max_num_seqs: int = 16
    max_loras: int = 4
    max_cpu_loras: int = 8
    max_lora_rank: int = 8
    lora_target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    eager: bool = True
    kv_cache_gib: int = 1
    extra_args: tuple[str, ...] = ()
    start_limit_s: float = 600  # without anything that moves, see EngineSupervisor

    @property
    def port(self) -> int:
        """The port of `url`.

        Raises:
            SettingsError: the URL has none, or names another host than this one's loopback.
        """
        parts = urlsplit(self.url)
        if parts.hostname not in ("127.0.0.1", "localhost") or parts.port is None:
            problem = f"{self.url} is not an address adaptd can start a server on"
            remedy = "Give http://127.0.0.1:PORT, or set upstream.manage to false"
            raise SettingsError("upstream.url", problem, remedy)
        return parts.port


class CpuCores(msgspec.Struct, frozen=True, kw_only=True):
    """What a CPU build computes on.

    `in_one_process`: the model runs in the engine's own process, its threads bound to no core. Else
    each worker has a process, its threads bound to `bound`, or to none where that is empty.
    """

    threads: int
    bound: tuple[int, ...] = ()
    in_one_process: bool = True


def command(settings: EngineSettings, *, cores: CpuCores | None = None) -> list[str]:
    """The whole command line. Every option exists in vLLM 0.32, CPU and GPU builds alike.

    `cores` are the CPU build's, which gets one adapter slot more than asked for, and the model in
    the engine's own process. vLLM's default is a process beside it, and both spin for a second
    after each message: on two cores that took half of every request's time, and 0.8 GiB.

    Raises:
        SettingsError: the address is not one to start on, or there would be several API servers.
    """
    _refuse_several_servers(settings.extra_args)
    slots = settings.max_loras + (0 if cores is None else SPARE_LORAS)
    line = [str(settings.python), *settings.entry_point]
    options: dict[str, object] = {
        "model": settings.base_dir.resolve(),
        "served-model-name": settings.base_name,
        "host": "127.0.0.1",
        "port": settings.port,
        "dtype": settings.dtype,
        "max-model-len": settings.max_model_len,
        "max-num-seqs": settings.max_num_seqs,
        "max-loras": slots,
        "max-cpu-loras": max(settings.max_cpu_loras, slots),
        "max-lora-rank": settings.max_lora_rank,
    }
    for name, value in options.items():
        line += [f"--{name}", str(value)]
    # Each request is in the gateway's capture; a second record in a log would hold nothing more.
    line += ["--enable-lora", "--disable-uvicorn-access-log"]
    if settings.lora_target_modules:
        line += ["--lora-target-modules", *settings.lora_target_modules]
    if settings.eager:
        line.append("--enforce-eager")
    if cores is not None and cores.in_one_process:
        line += ["--distributed-executor-backend", "uni"]
    if settings.gateway_config is not None:
        line += ["--middleware", GATEWAY_CLASS]
    return [*line, *settings.extra_args]


def _refuse_several_servers(extra_args: Sequence[str]) -> None:
    """Each would have a gateway of its own: routes, leases and loaded adapters reach one of them.

    vLLM takes underscores, beginnings of a name, and the number behind `=` too.
    """
    words = [word for given in extra_args for word in given.split("=", 1)]
    for option, count in pairwise(words):
        name = option.replace("_", "-")
        asked = name == "-asc" or (name.startswith("--api-s") and _API_SERVERS.startswith(name))
        if asked and count not in ("0", "1"):
            problem = f"{option} {count} starts several API servers, each with routes of its own"
            remedy = "Leave it out; for more throughput start more servers, one adaptd each"
            raise SettingsError("upstream.extra_args", problem, remedy)


def wants_workers(extra_args: Sequence[str], inherited: Mapping[str, str]) -> bool:
    """True where the operator asks for workers, their number, or the cores they are bound to."""
    given = [word.replace("_", "-") for word in extra_args]
    bind = inherited.get("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    return bind not in ("auto", "nobind") or any(word.startswith(_WORKERS) for word in given)


def environment(
    settings: EngineSettings, inherited: Mapping[str, str], *, cores: CpuCores | None
) -> dict[str, str]:
    """The server's environment. `cores` are the CPU build's, None on a machine with a GPU.

    What the operator exported for the CPU build stays; switches that adaptd relies on are set.
    """
    found = dict(inherited)
    found.pop("ADAPTD_STORE_KEY", None)  # the store's key is the daemon's alone
    if cores is not None:
        found.setdefault("VLLM_CPU_KVCACHE_SPACE", str(settings.kv_cache_gib))
        if cores.in_one_process:
            # Else the CPU build takes a process of its own whatever the command line says, to set
            # the threads' variables there. They are set here, for all processes.
            found["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        _set_threads(found, cores)
    found["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    found["VLLM_NO_USAGE_STATS"] = "1"
    found["HF_HUB_OFFLINE"] = "1"
    if settings.gateway_config is not None:
        found[CONFIG_VARIABLE] = str(settings.gateway_config.resolve())
    if IMPORT_ROOT.name not in ("site-packages", "dist-packages"):  # a checkout
        before = found.get("PYTHONPATH")
        found["PYTHONPATH"] = f"{IMPORT_ROOT}:{before}" if before else str(IMPORT_ROOT)
    return found


def _set_threads(found: dict[str, str], cores: CpuCores) -> None:
    """Say how many threads compute, that they sleep while they wait, and what they are bound to.

    A worker counts its threads by the list of cores, whatever OMP_NUM_THREADS says: a number that
    the operator exported bounds the list, and a larger one leaves threads unbound.
    """
    exported = found.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    threads = int(exported) if exported.isdigit() and int(exported) > 0 else cores.threads
    if not cores.in_one_process:
        bound = cores.bound[:threads] if threads <= len(cores.bound) else ()
        found.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, bound)) or "nobind")
    found.setdefault("OMP_NUM_THREADS", str(threads))
    if "GOMP_SPINCOUNT" not in found:
        # A thread that spins for one robbed of its core holds up who robs it: `make bench-beside`.
        found.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def digest(settings: EngineSettings) -> str:
    """Tells servers apart that were started with different settings."""
    return hashlib.sha256("\0".join(command(settings)).encode()).hexdigest()[:16]


_STAGES = (  # the last one whose mark is in the log is where a start has come to
    ("api_server version", "importing"),
    ("Initializing a V1 LLM engine", "starting the engine"),
    ("Starting to load model", "loading weights"),
    ("Loading weights took", "preparing the engine"),
    ("init engine", "warming up"),
    ("Starting vLLM", "opening the port"),
)
# Log lines open with (Process pid=1) LEVEL 11-22 17:10:03 [file.py:1]; the error follows.
_OPENING = r"^(?:\(\S+ pid=\d+\)\s*)?(?:[A-Z]+ [\d-]+ [\d:]+ \[\S+\] )?"
_LINE_OPENING = re.compile(_OPENING)
_PROBLEM = re.compile(_OPENING + "(.*(?:Error: |died unexpectedly).*)$")


def stage_of(log: str) -> str:
    """Where a starting server has come to, in words for a progress line."""
    reached = [stage for mark, stage in _STAGES if mark in log]
    return reached[-1] if reached else "importing"


def lines_said(log: str) -> int:
    """How many different things a log says. A warning that is repeated for ever counts once."""
    return len({_LINE_OPENING.sub("", line) for line in log.splitlines()})


def problem_of(log: str) -> str:
    """Why a server ended: the first error its log names that says more than "see above"."""
    found = [match[1] for line in log.splitlines() if (match := _PROBLEM.match(line.strip()))]
    telling = [text for text in found if "root cause above" not in text]
    return (telling or found or ["its log names no error"])[0].strip()[:300]
