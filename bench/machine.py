"""What the figures were measured on."""

import os
import platform
from pathlib import Path
from typing import Any

import duckdb


def machine() -> dict[str, Any]:
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpus[0] if cpus else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_bytes / 2**30),
        "python": platform.python_version(),
        "duckdb": duckdb.__version__,
        "system": platform.platform(terse=True),
    }


def peak_mb(pid: int | str) -> float:
    """The most memory a process had since it began. Its `ru_maxrss` counts its parent's too."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0
