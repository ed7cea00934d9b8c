"""Build a vLLM server's command line and environment, and read its log. Pure."""

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
# base and adapters the base gets the weights of the last slot. We never fill that slot: vLLM takes
# slots from the first on, and `serving.gateway.free_slots` empties those of unloaded adapters.
SPARE_LORAS = 1
_API_SERVERS = "--api-server-count"
_WORKERS = ("--distributed-executor", "--tensor-parallel", "--pipeline-parallel", "-tp", "-pp")


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One vLLM server. Its limits bound what the trainer may produce.

    `python` runs it and must have vLLM and adaptd's base install. `base_name` is the name the base
    is served under. `gateway_config` None starts it without the gateway. The supervisor resolves a
    `dtype` of auto. The operator's settings hold the defaults (`UpstreamSettings`); here are none.
    """

    url: str
    python: Path
    base_name: str
    base_dir: Path
    entry_point: tuple[str, ...]
    dtype: str
    max_model_len: int
    max_num_seqs: int
    max_loras: int
    max_cpu_loras: int
    max_lora_rank: int
    lora_target_modules: tuple[str, ...]
    eager: bool
    kv_cache_gib: int
    extra_args: tuple[str, ...]
    start_limit_s: float  # without anything that moves, see EngineSupervisor
    gateway_config: Path | None = None

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
    """The cores that a CPU build computes on.

    `in_one_process`: the model runs in the engine's own process, its threads bound to no core. Else
    each worker has a process, its threads bound to `bound`, or to none where that is empty.
    """

    threads: int
    bound: tuple[int, ...] = ()
    in_one_process: bool = True


def command(settings: EngineSettings, *, cores: CpuCores | None = None) -> list[str]:
    """Build the whole command line. Every option exists in vLLM 0.32, CPU and GPU builds alike.

    `cores` are the CPU build's, None on a machine with a GPU.

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
        # vLLM's default is a process beside the engine's, and both spin for a second after each
        # message: on two cores that took half of every request's time, and 0.8 GiB.
        line += ["--distributed-executor-backend", "uni"]
    if settings.gateway_config is not None:
        line += ["--middleware", GATEWAY_CLASS]
    return [*line, *settings.extra_args]


def _refuse_several_servers(extra_args: Sequence[str]) -> None:
    """Refuse options that start several API servers.

    Each server would have a gateway of its own: routes, leases and loaded adapters reach only one.
    vLLM also takes underscores, beginnings of a name, and the number behind `=`.
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
    """Build the server's environment. `cores` are the CPU build's, None on a machine with a GPU.

    Variables that the operator exported for the CPU build stay; switches that adaptd relies on are
    set.
    """
    found = dict(inherited)
    found.pop("ADAPTD_STORE_KEY", None)  # the store's key is the daemon's alone
    if cores is not None:
        found.setdefault("VLLM_CPU_KVCACHE_SPACE", str(settings.kv_cache_gib))
        if cores.in_one_process:
            # Else the CPU build takes a process of its own, whatever the command line says, to set
            # the variables of the threads there. Here they are set for all processes.
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
    """Set how many threads compute, their cores, and that they sleep while they wait.

    A worker counts its threads by the list of cores and ignores OMP_NUM_THREADS: a number that the
    operator exported bounds the list, and a larger one leaves threads unbound.
    """
    exported = found.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    threads = int(exported) if exported.isdigit() and int(exported) > 0 else cores.threads
    if not cores.in_one_process:
        bound = cores.bound[:threads] if threads <= len(cores.bound) else ()
        found.setdefault("VLLM_CPU_OMP_THREADS_BIND", ",".join(map(str, bound)) or "nobind")
    found.setdefault("OMP_NUM_THREADS", str(threads))
    if "GOMP_SPINCOUNT" not in found:
        # A thread that spins while it waits for one that lost its core to another process slows
        # that process down, measured by `make bench-beside`.
        found.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def digest(settings: EngineSettings) -> str:
    """Digest the settings, to tell servers apart that were started with different ones."""
    return hashlib.sha256("\0".join(command(settings)).encode()).hexdigest()[:16]


_STAGES = (  # the last one whose mark is in the log is the stage of a start
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
    """Name the stage of a starting server, in words for a progress line."""
    reached = [stage for mark, stage in _STAGES if mark in log]
    return reached[-1] if reached else "importing"


def count_distinct_lines(log: str) -> int:
    """Count the different lines of a log. A warning that is repeated for ever counts once."""
    return len({_LINE_OPENING.sub("", line) for line in log.splitlines()})


def problem_of(log: str) -> str:
    """Find why a server ended: the first error in its log that says more than "see above"."""
    found = [match[1] for line in log.splitlines() if (match := _PROBLEM.match(line.strip()))]
    telling = [text for text in found if "root cause above" not in text]
    return (telling or found or ["its log names no error"])[0].strip()[:300]
