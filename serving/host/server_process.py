"""A server that outlives the daemon: in its own session, found again by pid and start time."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from adaptd.daemon.domain.processes import ENDED, Work, group_members, stat_fields, work_of
from adaptd.daemon.wire.files import replace_file
from adaptd.daemon.wire.texts import NOT_DECODED

_KEPT_LOGS = 5
_POLL_S = 0.1
# Executes the server once a byte comes on its standard input; ends where that is closed first.
_WAIT = (
    sys.executable,
    "-ISc",
    "import os,signal,sys\n"
    "if not os.read(0,1): sys.exit('whoever started it ended first')\n"
    "os.dup2(os.open(os.devnull,os.O_RDONLY),0)\n"
    "signal.signal(signal.SIGPIPE,signal.SIG_DFL)\n"  # Python ignores it, and exec keeps that
    "os.execvp(sys.argv[1],sys.argv[1:])",
)


ENGINE_FILE = "vllm.json"  # in the home: the record of the server that was started


class ServerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The record in {home}/vllm.json.

    `boot` and `start_ticks` tell the process from a later one of the same pid. `took_s` is how
    long its start took until it answered, None before that: the next start's forecast. `dtype` is
    the number format it was started in; releases without this field knew one default.
    """

    pid: int
    boot: str
    start_ticks: int
    started_at: float  # unix seconds
    url: str
    settings: str  # digest of what it was started with
    took_s: float | None = None
    dtype: str = "bfloat16"


def read_record(path: Path) -> ServerRecord | None:
    """Read the record at `path`; None where there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ServerRecord)
    except (OSError, *NOT_DECODED):
        return None


def write_record(path: Path, record: ServerRecord) -> None:
    """Replace the record in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, msgspec.json.encode(record))


def start_server(
    command: Sequence[str],
    env: Mapping[str, str],
    *,
    log: Path,
    url: str,
    settings: str,
    dtype: str,
    keep: Callable[[ServerRecord], None],
) -> ServerRecord:
    """Start a server in a session of its own: neither Ctrl-C nor the daemon's end reaches it.

    1. Start a process that waits on its standard input.
    2. Let `keep` put the record on disk.
    3. Write a byte: the process executes the server.

    It ends instead where we end before step 3 or `keep` fails: no server runs without a record.
    """
    rotate_logs(log)
    waiting, go = os.pipe()  # not inherited, so our end closes with us
    try:
        pid = _spawn_process([*_WAIT, *command], env, stdin=waiting, log=log)
    finally:
        os.close(waiting)
    with os.fdopen(go, "wb", buffering=0) as told:
        record = _make_record(pid, url=url, settings=settings, dtype=dtype)
        try:
            keep(record)
        except BaseException:
            told.close()
            os.waitpid(pid, 0)
            raise
        with contextlib.suppress(BrokenPipeError):  # it has ended meanwhile: `is_alive` says so
            told.write(b"start")
    return record


def _make_record(pid: int, *, url: str, settings: str, dtype: str) -> ServerRecord:
    fields = stat_fields(pid)
    return ServerRecord(
        pid=pid,
        boot=_boot_id(),
        start_ticks=int(fields[19]) if fields else 0,
        started_at=time.time(),
        url=url,
        settings=settings,
        dtype=dtype,
    )


def _spawn_process(command: Sequence[str], env: Mapping[str, str], *, stdin: int, log: Path) -> int:
    to_log = (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return os.posix_spawn(  # not Popen, which warns where it is dropped before its process ends
        command[0],
        list(command),
        dict(env),
        file_actions=[
            (os.POSIX_SPAWN_DUP2, stdin, 0),
            to_log,
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM),
    )


def rotate_logs(log: Path) -> None:
    """Keep the last few logs as .1, .2, …: one a start."""
    log.parent.mkdir(parents=True, exist_ok=True)
    for number in range(_KEPT_LOGS - 1, -1, -1):
        older = log.with_name(f"{log.name}.{number}") if number else log
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))


def is_alive(record: ServerRecord) -> bool:
    """True while the very process of the record runs. Collects one that has ended, if ours."""
    fields = stat_fields(record.pid) if record.boot == _boot_id() else None
    if fields is None or int(fields[19]) != record.start_ticks:
        return False
    if fields[0] not in ENDED:
        return True
    with contextlib.suppress(ChildProcessError):  # an earlier daemon's: no child of this one
        os.waitpid(record.pid, os.WNOHANG)
    return False


def end_server(record: ServerRecord, *, grace_s: float) -> None:
    """End the server: SIGTERM, wait `grace_s`, kill all of its group. Blocking; safe to repeat.

    Engine and worker processes are in the group; where their parent was killed they live on.
    """
    if record.boot != _boot_id():
        return
    if is_alive(record):
        with contextlib.suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGTERM)
    _wait_while(lambda: is_alive(record), grace_s)
    for pid in _find_group(record):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _wait_while(lambda: is_alive(record) or bool(_find_group(record)), grace_s)


def _wait_while(true: Callable[[], bool], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while true() and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def work_done(record: ServerRecord) -> Work | None:
    """Sum up the work of the server's processes so far; None where none runs."""
    return work_of(_find_group(record))


def _find_group(record: ServerRecord) -> list[int]:
    # None older than the record: a reused id is not hit.
    return group_members(record.pid, since_ticks=record.start_ticks)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
