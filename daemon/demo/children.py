"""Children that the calling thread waits for: logged, watched, and never left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from adaptd.daemon.domain.patience import Patience
from adaptd.daemon.domain.processes import group_members, work_of
from adaptd.daemon.wire.errors import AdaptdError

# What is started through this line the kernel ends with the thread that started it, so a killed
# demo or test leaves nothing behind.
DIE_WITH_PARENT = (
    sys.executable,
    "-c",
    "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,15);os.execv(sys.argv[1],sys.argv[1:])",
)
STILL_S = 120.0
_LOOK_EVERY_S = 1.0


def run_to_end(command: Sequence[str], *, what: str, log: Path, still_s: float = STILL_S) -> int:
    """Run a command to its end and say its exit code. It may take as long as it moves.

    Its output is in `log`.
    Whatever ends the wait, a signal of this process too, ends the child with all of its group.

    Raises:
        AdaptdError: neither its output grew nor did it compute, read or write for `still_s`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(
            [*DIE_WITH_PARENT, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on
        )
    try:
        return _wait_for_child(child, what, log, still_s)
    except BaseException:
        kill_group(child)
        child.wait()
        raise


def _wait_for_child(child: subprocess.Popen[bytes], what: str, log: Path, still_s: float) -> int:
    patience = Patience(still_s)
    while True:
        with suppress(subprocess.TimeoutExpired):
            return child.wait(min(_LOOK_EVERY_S, still_s))
        work = work_of(group_members(child.pid))
        patience.saw(output=log.stat().st_size, work=work and work.units(still_s))
        if patience.is_over:
            raise AdaptdError(what, f"it hangs: {patience.words}", f"Its output: {log}")


def kill_group(child: subprocess.Popen[bytes] | None) -> None:
    """SIGKILL to a child that leads a group, and to all of that. Waits for nothing."""
    if child is not None and child.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
