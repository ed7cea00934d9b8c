"""The training child as a process: its death with the daemon, its lock, clock, priority and output.

No torch here: all of this comes before torch is imported.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from adaptd.daemon.training.job import LOCK_FILE, PAUSED_FD, Job, Line, encode_line

_PR_SET_PDEATHSIG = 1
_STATUS = Path("/proc/self/status")
Report = Callable[[Line], None]


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies. 0 stands for no parent.

    Exits at once where the parent has died before the kernel knew.
    """
    if not parent:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    check_parent(parent)


def check_parent(parent: int) -> None:
    """Exit where the daemon has ended, for systems whose kernel does not report it."""
    if parent and os.getppid() != parent:
        os._exit(1)


def lock_directory(directory: Path) -> bool:
    """Hold the run directory until this process ends. False where another process holds it."""
    descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    os.set_inheritable(descriptor, False)
    return True


def paused_s() -> float:
    """Seconds for which the daemon has stopped this process so far; 0 without such pauses."""
    descriptor = os.environ.get(PAUSED_FD)
    return float(os.pread(int(descriptor), 32, 0) or 0) if descriptor else 0.0


def peak_bytes() -> int:
    """The most memory this process has held since it began."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # noqa: PLC0415 not on every system

    # Without /proc the figure outlives exec, so it counts the parent's peak too.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def running_s() -> float:
    """A clock that stands still while this process is stopped. Only differences count."""
    return time.monotonic() - paused_s()


def set_up(job: Job) -> None:
    """Set priority, threads and an environment without network, before torch is imported."""
    _lower_priority(job.niceness)
    scratch = Path(job.directory) / "cache"
    os.environ |= {
        "OMP_NUM_THREADS": str(job.threads),
        "MKL_NUM_THREADS": str(job.threads),
        "HF_HOME": str(scratch),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Without it matrix products on CUDA may differ from run to run.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    if "GOMP_SPINCOUNT" not in os.environ:  # spinning threads hold up those that answer requests
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR"):
        os.environ.pop(name, None)  # one process, whatever launcher the daemon itself runs under


def _lower_priority(niceness: int) -> None:
    """Lower the priority of this process and, where it leads a session, of its scheduling group."""
    os.nice(niceness)
    # Where Linux makes a scheduling group of each session, nice counts only within a session, and
    # this process and the model server have one each. A process started by hand shares the group of
    # its terminal, which keeps its priority.
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # another kernel, or a container's own groups
            Path("/proc/self/autogroup").write_text(str(niceness))


def redirect_stdout() -> Report:
    """Keep stdout for the child's lines. Output of libraries goes to stderr, which is the log."""
    lines = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def report(line: Line) -> None:
        lines.write(encode_line(line))

    return report


def log_failure(error: BaseException) -> None:
    """Write the place and the kind of an error to the log."""
    # Without the message: it may quote the row that the error met.
    frames = "".join(traceback.format_tb(error.__traceback__))
    sys.stderr.write(f"{frames}{type(error).__module__}.{type(error).__qualname__}\n")
