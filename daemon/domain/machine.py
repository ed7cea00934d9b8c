"""The machine as this process may use it: processor, cores, memory. Reads the kernel's files."""

import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import msgspec

_MOST_CORES = 64  # one vLLM or one trainer uses no more: further ones only add barriers
_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
# They decide how fast a number format is. Names as the kernel gives them, x86 and then ARM.
_TELLING_SETS = (
    "avx2",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_fp16",
    "asimd",
    "asimdhp",
    "bf16",
    "sve",
)


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """One machine as one process sees it. `cores` and `memory_bytes` are its limits."""

    processor: str
    instruction_sets: tuple[str, ...]
    cores: int
    memory_bytes: int
    gpus: tuple[str, ...] = ()


def this_machine() -> Machine:
    """Describe this machine. Cheap: reads a few files of the kernel."""
    fields = _parse_cpuinfo((_PROC / "cpuinfo").read_text())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return Machine(
        processor=fields.get("model name") or platform.processor() or platform.machine(),
        instruction_sets=tuple(name for name in _TELLING_SETS if name in flags),
        cores=core_count(),
        memory_bytes=memory_limit_bytes(),
        gpus=gpu_names(),
    )


def has_gpu() -> bool:
    """Say whether a driver of NVIDIA or AMD has made its device."""
    return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd"))


def gpu_names() -> tuple[str, ...]:
    """List the models of the GPUs whose driver runs, in the order of the driver."""
    nvidia = [
        value.strip()
        for path in sorted((_PROC / "driver/nvidia/gpus").glob("*/information"))
        for line in _read_lines(path)
        for name, _, value in [line.partition(":")]
        if name == "Model"
    ]
    amd = [
        " ".join(_read_words(path))
        for path in sorted(Path("/sys/class/kfd/kfd/topology/nodes").glob("*/name"))
    ]
    return (*nvidia, *filter(None, amd))


def allowed_cores() -> list[int]:
    """List the cores that the scheduler may use for this process (affinity, cpusets), in order."""
    return sorted(os.sched_getaffinity(0))


def core_count(*, cgroups: Path = _CGROUPS, proc: Path = _PROC) -> int:
    """Count threads that can compute at once: the allowed cores, or fewer under a quota."""
    return usable_cores(len(allowed_cores()), _find_cpu_quota(cgroups, proc))


def usable_cores(allowed: int, quota: float | None) -> int:
    """Return the cores to use, from 1 to 64."""
    if quota is not None:  # 1.5 cores count as 2: one thread would leave half a core idle
        allowed = min(allowed, max(1, math.ceil(quota)))
    return min(allowed, _MOST_CORES)


def has_quota(*, cgroups: Path = _CGROUPS, proc: Path = _PROC) -> bool:
    """Say whether a quota allows less time than the allowed cores have.

    Threads must not be bound to cores then: other processes may be busy on the chosen ones.
    """
    quota = _find_cpu_quota(cgroups, proc)
    return quota is not None and quota < len(allowed_cores())


def memory_limit_bytes(*, cgroups: Path = _CGROUPS, proc: Path = _PROC) -> int:
    """Return the memory that this process may use: the machine's, or less under a cgroup."""
    limits = [_read_meminfo(proc, "MemTotal")]
    for folder in _walk_cgroups(cgroups, proc, "memory"):
        limits += _read_numbers(folder / "memory.max") + _read_numbers(
            folder / "memory.limit_in_bytes"
        )
    return min(limits)


def memory_available_bytes(*, cgroups: Path = _CGROUPS, proc: Path = _PROC) -> int:
    """Return the memory that is free now; caches that the kernel can drop count as free."""
    found = [_read_meminfo(proc, "MemAvailable")]
    for folder in _walk_cgroups(cgroups, proc, "memory"):
        limit = [
            *_read_numbers(folder / "memory.max"),
            *_read_numbers(folder / "memory.limit_in_bytes"),
        ]
        used = [
            *_read_numbers(folder / "memory.current"),
            *_read_numbers(folder / "memory.usage_in_bytes"),
        ]
        if limit and used:
            found.append(max(0, limit[0] - used[0] + _read_inactive_file(folder)))
    return min(found)


def _find_cpu_quota(cgroups: Path, proc: Path) -> float | None:
    """Return the least cores' worth of time that any group above this process allows."""
    quotas: list[float] = []
    for folder in _walk_cgroups(cgroups, proc, "cpu"):
        words = _read_words(folder / "cpu.max")  # version 2: "max 100000" or "150000 100000"
        words = words or [
            *_read_words(folder / "cpu.cfs_quota_us"),
            *_read_words(folder / "cpu.cfs_period_us"),
        ]
        if len(words) == 2 and words[0] not in ("max", "-1") and int(words[1]) > 0:
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def _walk_cgroups(cgroups: Path, proc: Path, controller: str) -> Iterator[Path]:
    """Yield folders of this process' control group and of those above it, both versions."""
    for line in _read_lines(proc / "self" / "cgroup"):
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            root = cgroups
        elif controller in names.split(","):
            root = cgroups / controller
        else:
            continue
        folder = root / path.strip("/")
        yield from (step for step in (folder, *folder.parents) if step.is_relative_to(root))


def _read_inactive_file(folder: Path) -> int:
    for line in _read_lines(folder / "memory.stat"):
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def _read_meminfo(proc: Path, field: str) -> int:
    for line in _read_lines(proc / "meminfo"):
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return 1 << 62  # no such file, no known limit


def _parse_cpuinfo(text: str) -> dict[str, str]:
    first = text.split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _read_numbers(path: Path) -> list[int]:
    return [int(word) for word in _read_words(path) if word.isdigit()]


def _read_words(path: Path) -> list[str]:
    return [word for line in _read_lines(path) for word in line.split()]


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
