"""The machine as this process may use it: processor, cores, memory. Reads the kernel's files."""

import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import msgspec

_MOST_CORES = 64  # what one vLLM or one trainer puts to use; more only adds barriers
_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
# What decides how fast a number format is. Names as the kernel gives them, x86 and then ARM.
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
    """One machine as one process sees it. `cores` and `memory_bytes` are what it may use."""

    processor: str
    instruction_sets: tuple[str, ...]
    cores: int
    memory_bytes: int
    gpus: tuple[str, ...] = ()


def this_machine() -> Machine:
    """Describe this machine. Cheap: a few files of the kernel are read."""
    fields = _cpuinfo((_PROC / "cpuinfo").read_text())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return Machine(
        processor=fields.get("model name") or platform.processor() or platform.machine(),
        instruction_sets=tuple(name for name in _TELLING_SETS if name in flags),
        cores=core_count(),
        memory_bytes=memory_limit_bytes(),
        gpus=gpu_names(),
    )


def has_gpu() -> bool:
    """True where a driver of NVIDIA or AMD has made its device."""
    return any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd"))


def gpu_names() -> tuple[str, ...]:
    """Models of the GPUs whose driver runs, in the order of the driver."""
    nvidia = [
        value.strip()
        for path in sorted((_PROC / "driver/nvidia/gpus").glob("*/information"))
        for line in _lines(path)
        for name, _, value in [line.partition(":")]
        if name == "Model"
    ]
    amd = [
        " ".join(_words(path))
        for path in sorted(Path("/sys/class/kfd/kfd/topology/nodes").glob("*/name"))
    ]
    return (*nvidia, *filter(None, amd))


def allowed_cores() -> list[int]:
    """The cores that the scheduler may put this process on (affinity, cpusets), in order."""
    return sorted(os.sched_getaffinity(0))


def core_count(*, cgroups: Path = _CGROUPS, proc: Path = _PROC) -> int:
    """Threads that can compute at the same time: the allowed cores, less where a quota is lower."""
    return usable_cores(len(allowed_cores()), _cpu_quota(cgroups, proc))


def usable_cores(allowed: int, quota: float | None) -> int:
    """From 1 to 64. A quota of 1.5 cores counts as 2: one thread would leave half a core idle."""
    if quota is not None:
        allowed = min(allowed, max(1, math.ceil(quota)))
    return min(allowed, _MOST_CORES)


def has_quota(*, cgroups: Path = _CGROUPS, proc: Path = _PROC) -> bool:
    """True where fewer cores' worth of time may be used than cores are allowed.

    Threads must not be bound to cores then: others may be busy on the ones chosen.
    """
    quota = _cpu_quota(cgroups, proc)
    return quota is not None and quota < len(allowed_cores())


def memory_limit_bytes(*, cgroups: Path = _CGROUPS, proc: Path = _PROC) -> int:
    """Memory that this process may use at most: the machine's, less where a cgroup allows less."""
    limits = [_meminfo(proc, "MemTotal")]
    for folder in _folders(cgroups, proc, "memory"):
        limits += _numbers(folder / "memory.max") + _numbers(folder / "memory.limit_in_bytes")
    return min(limits)


def memory_available_bytes(*, cgroups: Path = _CGROUPS, proc: Path = _PROC) -> int:
    """Memory that is free for new work now; caches that the kernel can drop count as free."""
    found = [_meminfo(proc, "MemAvailable")]
    for folder in _folders(cgroups, proc, "memory"):
        limit = [*_numbers(folder / "memory.max"), *_numbers(folder / "memory.limit_in_bytes")]
        used = [*_numbers(folder / "memory.current"), *_numbers(folder / "memory.usage_in_bytes")]
        if limit and used:
            found.append(max(0, limit[0] - used[0] + _inactive_file(folder)))
    return min(found)


def _cpu_quota(cgroups: Path, proc: Path) -> float | None:
    """Cores' worth of time, the least that any group above this process allows."""
    quotas = []
    for folder in _folders(cgroups, proc, "cpu"):
        words = _words(folder / "cpu.max")  # version 2: "max 100000" or "150000 100000"
        words = words or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(words) == 2 and words[0] not in ("max", "-1") and int(words[1]) > 0:
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def _folders(cgroups: Path, proc: Path, controller: str) -> Iterator[Path]:
    """Folders of this process' control group and of those above it, both versions."""
    for line in _lines(proc / "self" / "cgroup"):
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


def _inactive_file(folder: Path) -> int:
    for line in _lines(folder / "memory.stat"):
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def _meminfo(proc: Path, field: str) -> int:
    for line in _lines(proc / "meminfo"):
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return 1 << 62  # no such file, no known limit


def _cpuinfo(text: str) -> dict[str, str]:
    first = text.split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _numbers(path: Path) -> list[int]:
    return [int(word) for word in _words(path) if word.isdigit()]


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
