"""Supervise the vLLM server: adopt the one that runs, else start one, watch it, restart it."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import TracebackType

import httpx
import msgspec
import structlog

from adaptd.daemon.domain.machine import allowed_cores, core_count, has_quota
from adaptd.daemon.domain.patience import WorkPatience
from adaptd.daemon.wire.errors import HostError
from adaptd.serving.host.builds import computes_on_cpu
from adaptd.serving.host.launch import (
    CpuCores,
    EngineSettings,
    command,
    count_distinct_lines,
    digest,
    environment,
    problem_of,
    stage_of,
    wants_workers,
)
from adaptd.serving.host.server_process import (
    ENGINE_FILE,
    ServerRecord,
    end_server,
    is_alive,
    read_record,
    start_server,
    work_done,
    write_record,
)

_log = structlog.get_logger(__name__)
_PROBE_EVERY_S = 1.0
_LONGEST_PAUSE_S = 60.0
# Work alone extends a wait to this many times its limit, not for ever: a process that spins in a
# deadlock works, too. A start of 70 s on two cores, a hundred times slower, stays below 12 x 600 s.
_MOST_START = 12
_MOST_SILENCE = 10
_START_LOG_BYTES = 1 << 20
_DEATH_LOG_BYTES = 1 << 16  # errors of earlier requests lie before these


class EngineState(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    FAILING = "failing"  # runs, but does not answer


class EngineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the server.

    `expected_s` is how long its last start took, None where none is known. `stale` says that it was
    started with other settings than those given now; they apply from its next start.
    """

    state: EngineState = EngineState.STOPPED
    detail: str = ""
    pid: int | None = None
    elapsed_s: float = 0.0
    expected_s: float | None = None
    restarts: int = 0
    stale: bool = False


class EngineSupervisor:
    """One vLLM server. Cancellation, or the daemon's end, leaves the server running.

    `run` repeats these steps until cancelled:

    1. Adopt the server of the record where it runs (`ensure`), else end its leftovers and start
       one: refuse a taken port, choose cores and number format, write the record.
    2. Wait until it answers. A start may take as long as it moves: logs something new, computes or
       reads. One that stands still for `start_limit_s` is ended, and one that computes without a
       new log line after 12 times as long.
    3. Watch it. A server that was up and does not answer is ended once it has done next to nothing
       for `unhealthy_limit_s`; one that works is busy, and is ended after 10 times as long.
    4. Once it has died, begin again; after a failed start with a pause of 1 s, doubled to 60 s.
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        home: Path,
        control_token: str | None = None,
        on_change: Callable[[EngineStatus], None] = lambda _: None,
        dtype: Callable[[], str] | None = None,
        unhealthy_limit_s: float = 60.0,
        grace_s: float = 20.0,
        probe_limit_s: float = 5.0,
    ) -> None:
        """`dtype` resolves, blocking, a `settings.dtype` of auto; without it vLLM decides."""
        self._settings = settings
        self._dtype = dtype
        self._record_path = home / ENGINE_FILE
        self.log_path = home / "logs" / "vllm.log"
        self._on_change = on_change
        self._unhealthy_limit_s = unhealthy_limit_s
        self._grace_s = grace_s
        self.status = EngineStatus()
        headers = {"Authorization": f"Bearer {control_token}"} if control_token else {}
        self._http = httpx.AsyncClient(
            base_url=settings.url, headers=headers, timeout=probe_limit_s, trust_env=False
        )

    async def __aenter__(self) -> "EngineSupervisor":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    def running_dtype(self) -> str | None:
        """Return the number format that the running server was started in; None where none runs."""
        record = read_record(self._record_path)
        if record is None or not is_alive(record) or record.dtype == "auto":
            return None
        return record.dtype

    async def run(self) -> None:
        """Keep a server running until cancelled: adopt or start, watch, start again."""
        pause_s = 1.0
        while True:
            try:
                await self.ensure()
                pause_s = 1.0
                await self._watch_server()
            except (HostError, OSError) as error:  # a full disk, for one; live goes on
                problem = error.problem if isinstance(error, HostError) else str(error)
                _log.error("engine_start_failed", problem=problem, again_in_s=pause_s)
                self._report_status(state=EngineState.STOPPED, detail=problem)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            self._report_status(restarts=self.status.restarts + 1)

    async def ensure(self) -> None:
        """Return once a server answers: the running one, or a new one. Safe to repeat.

        Raises:
            HostError: it ended or did not answer in time, with the reason its log gives.
        """
        record = read_record(self._record_path)
        if record is not None and record.url == self._settings.url and is_alive(record):
            stale = record.settings != digest(self._settings)
            self._report_status(state=EngineState.STARTING, detail="found running", pid=record.pid)
            self._report_status(stale=stale, expected_s=record.took_s)
            _log.info("engine_adopted", pid=record.pid, settings_differ=stale)
        else:
            record = await self._start_server(record)
        await self._wait_ready(record)

    async def stop(self) -> None:
        """End the server and all its processes. Only on request: nothing in this class calls it."""
        if record := read_record(self._record_path):
            await asyncio.to_thread(end_server, record, grace_s=self._grace_s)
            self._record_path.unlink(missing_ok=True)
        self._report_status(state=EngineState.STOPPED, detail="stopped", pid=None)

    async def _start_server(self, before: ServerRecord | None) -> ServerRecord:
        if before is not None:  # a dead server may have left processes of its group
            await asyncio.to_thread(end_server, before, grace_s=self._grace_s)
        _refuse_taken_port(self._settings.port)
        cores = await asyncio.to_thread(cpu_cores, self._settings, os.environ)
        decided = await self._decide_dtype()
        line = command(decided, cores=cores)
        env = environment(self._settings, os.environ, cores=cores)
        record = start_server(
            line,
            env,
            log=self.log_path,
            url=self._settings.url,
            settings=digest(self._settings),
            dtype=decided.dtype,
            keep=partial(write_record, self._record_path),
        )
        expected_s = before.took_s if before else None
        self._report_status(
            state=EngineState.STARTING, pid=record.pid, stale=False, expected_s=expected_s
        )
        _log.info("engine_started", pid=record.pid, log=str(self.log_path))
        return record

    async def _decide_dtype(self) -> EngineSettings:
        """Resolve a number format of auto. The digest stays that of the settings as written."""
        if self._settings.dtype != "auto" or self._dtype is None:
            return self._settings
        self._report_status(state=EngineState.STARTING, detail="measuring number formats", pid=None)
        return msgspec.structs.replace(self._settings, dtype=await asyncio.to_thread(self._dtype))

    async def _wait_ready(self, record: ServerRecord) -> None:
        starts = record.took_s is None  # else it has answered before
        patience = self._make_patience(starts=starts)
        while not await self._is_healthy():
            log = self._read_log_tail(_START_LOG_BYTES)
            if not is_alive(record):
                raise self._make_error(f"vLLM ended while starting: {problem_of(log)}")
            work = await asyncio.to_thread(work_done, record)
            patience.saw(work=work, lines=count_distinct_lines(log) if starts else None)
            if patience.is_over:
                await asyncio.to_thread(end_server, record, grace_s=self._grace_s)
                silent = "vLLM hangs" if starts else "vLLM was up and does not answer"
                raise self._make_error(f"{silent}: {patience.words}")
            self._report_status(detail=stage_of(log), elapsed_s=time.time() - record.started_at)
            await asyncio.sleep(_PROBE_EVERY_S)
        if starts:
            record = msgspec.structs.replace(record, took_s=time.time() - record.started_at)
            write_record(self._record_path, record)
        self._report_status(state=EngineState.READY, detail="answers", elapsed_s=0.0)

    async def _watch_server(self) -> None:
        """Return once the server has died, or was ended because it did not answer."""
        record = read_record(self._record_path)
        patience: WorkPatience | None = None  # None while it answers
        while record is not None and is_alive(record):
            if await self._is_healthy():
                patience = None
                self._report_status(state=EngineState.READY, detail="answers")
            else:
                patience = patience or self._make_patience(starts=False)
                patience.saw(work=await asyncio.to_thread(work_done, record))
                self._report_status(state=EngineState.FAILING, detail="does not answer")
                if patience.is_over:
                    _log.error("engine_unresponsive", pid=record.pid, why=patience.words)
                    await asyncio.to_thread(end_server, record, grace_s=self._grace_s)
                    break
            await asyncio.sleep(_PROBE_EVERY_S)
        _log.error("engine_died", problem=problem_of(self._read_log_tail(_DEATH_LOG_BYTES)))
        self._report_status(state=EngineState.STOPPED, detail="died", pid=None)

    def _make_patience(self, *, starts: bool) -> WorkPatience:
        if starts:
            return WorkPatience(self._settings.start_limit_s, most=_MOST_START)
        return WorkPatience(self._unhealthy_limit_s, most=_MOST_SILENCE)

    async def _is_healthy(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return (await self._http.get("/health")).status_code == httpx.codes.OK
        return False

    def _make_error(self, problem: str) -> HostError:
        return HostError(self._settings.url, problem, f"Its log: {self.log_path}")

    def _read_log_tail(self, most_bytes: int) -> str:
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, self.log_path.stat().st_size - most_bytes))
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def _report_status(self, **changes: object) -> None:
        before, self.status = self.status, msgspec.structs.replace(self.status, **changes)
        if self.status != before:
            self._on_change(self.status)


def cpu_cores(settings: EngineSettings, inherited: Mapping[str, str]) -> CpuCores | None:
    """Choose the cores of a CPU build; None where vLLM computes on a GPU. Blocking.

    Threads of a worker are bound where the allowed cores are wholly ours, not under a lower quota.
    """
    if not computes_on_cpu(settings.python):
        return None
    threads = core_count()
    return CpuCores(
        threads=threads,
        bound=() if has_quota() else tuple(allowed_cores()[:threads]),
        in_one_process=not wants_workers(settings.extra_args, inherited),
    )


def _refuse_taken_port(port: int) -> None:
    """Refuse a busy port at once and by name, not after vLLM's start.

    Raises:
        HostError: another process listens on it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as vLLM does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            remedy = "Stop what listens there, or give another ADAPTD_UPSTREAM__URL"
            raise HostError(
                f"port {port}", f"cannot be taken ({error.strerror})", remedy
            ) from error
