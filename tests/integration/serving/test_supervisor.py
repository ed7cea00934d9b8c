"""The supervisor over a stand-in process that dies, hangs or fails."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from adaptd.daemon.demo.broker import free_port
from adaptd.daemon.wire.errors import HostError
from adaptd.serving.host.launch import EngineSettings
from adaptd.serving.host.server_process import read_record
from adaptd.serving.host.supervisor import EngineState, EngineStatus, EngineSupervisor
from tests.support.broker import ROOT
from tests.support.engine_settings import make_engine_settings
from tests.support.waiting import until, until_blocking


@pytest.fixture
def settings(tmp_path: Path) -> EngineSettings:
    return make_engine_settings(
        url=f"http://127.0.0.1:{free_port()}",
        base_name="none",
        base_dir=tmp_path,
        entry_point=(str(ROOT / "tests" / "support" / "standin_server.py"),),
        start_limit_s=20,
    )


@asynccontextmanager
async def supervising(
    settings: EngineSettings,
    said: list[EngineStatus] | None = None,
    *,
    unhealthy_limit_s: float = 2,
) -> AsyncIterator[EngineSupervisor]:
    """A supervisor whose server is ended with the test."""
    async with EngineSupervisor(
        settings,
        home=settings.base_dir,
        on_change=(said if said is not None else []).append,
        unhealthy_limit_s=unhealthy_limit_s,
        grace_s=2,
        probe_limit_s=1,
    ) as supervisor:
        try:
            yield supervisor
        finally:
            await supervisor.stop()


@asynccontextmanager
async def running(supervisor: EngineSupervisor) -> AsyncIterator[None]:
    task = asyncio.create_task(supervisor.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def is_running(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


def pid_of(settings: EngineSettings) -> int:
    record = read_record(settings.base_dir / "vllm.json")
    assert record is not None
    return record.pid


async def test_a_server_that_dies_is_started_again(settings: EngineSettings) -> None:
    async with supervising(settings) as supervisor, running(supervisor):
        await until(lambda: supervisor.status.state is EngineState.READY, within_s=20)
        first = pid_of(settings)

        os.kill(first, signal.SIGKILL)

        await until(
            lambda: supervisor.status.state is EngineState.READY and pid_of(settings) != first,
            within_s=20,
        )
        assert supervisor.status.restarts == 1


async def test_a_server_that_does_not_answer_is_ended_and_started_again(
    settings: EngineSettings, tmp_path: Path
) -> None:
    said: list[EngineStatus] = []
    async with supervising(settings, said) as supervisor, running(supervisor):
        await until(lambda: supervisor.status.state is EngineState.READY, within_s=20)
        first = pid_of(settings)

        (tmp_path / "hang").touch()
        await until(lambda: not is_running(first), within_s=20)
        (tmp_path / "hang").unlink()

        await until(lambda: supervisor.status.state is EngineState.READY, within_s=20)
        assert EngineState.FAILING in {status.state for status in said}


async def test_a_server_that_computes_and_does_not_answer_is_busy(
    settings: EngineSettings, tmp_path: Path
) -> None:
    async with supervising(settings) as supervisor, running(supervisor):
        await until(lambda: supervisor.status.state is EngineState.READY, within_s=20)
        first = pid_of(settings)

        (tmp_path / "busy").touch()
        await until(lambda: supervisor.status.state is EngineState.FAILING, within_s=20)
        failing_at = time.monotonic()
        # three times the limit of a server that does nothing
        await until(lambda: time.monotonic() - failing_at > 6, within_s=20)
        (tmp_path / "busy").unlink()

        await until(lambda: supervisor.status.state is EngineState.READY, within_s=20)
        assert pid_of(settings) == first


async def test_a_server_that_computes_and_never_answers_is_ended(
    settings: EngineSettings, tmp_path: Path
) -> None:
    async with supervising(settings, unhealthy_limit_s=0.4) as supervisor, running(supervisor):
        await until(lambda: supervisor.status.state is EngineState.READY, within_s=20)
        first = pid_of(settings)

        (tmp_path / "busy").touch()

        await until(lambda: not is_running(first), within_s=20)


async def test_a_daemon_that_ends_leaves_its_server_and_the_next_one_adopts_it(
    settings: EngineSettings,
) -> None:
    async with EngineSupervisor(settings, home=settings.base_dir) as first, running(first):
        await until(lambda: first.status.state is EngineState.READY, within_s=20)
        pid = pid_of(settings)

    async with supervising(settings) as second:
        await second.ensure()

        assert second.status.pid == pid
        assert is_running(pid)
        assert not second.status.stale


async def test_a_server_started_with_other_settings_is_adopted_and_said_to_be_stale(
    settings: EngineSettings,
) -> None:
    async with EngineSupervisor(settings, home=settings.base_dir) as first:
        await first.ensure()

    async with supervising(msgspec.structs.replace(settings, max_loras=2)) as second:
        await second.ensure()

        assert second.status.stale


async def test_an_adopted_server_that_never_answers_is_ended(
    settings: EngineSettings, tmp_path: Path
) -> None:
    async with EngineSupervisor(settings, home=settings.base_dir) as first:
        await first.ensure()
    (tmp_path / "hang").touch()

    async with supervising(settings) as second:
        with pytest.raises(HostError, match="was up and does not answer: nothing moved for"):
            await second.ensure()

        assert not is_running(pid_of(settings))


async def test_a_start_that_moves_is_not_ended_however_long_it_takes(
    settings: EngineSettings, tmp_path: Path
) -> None:
    (tmp_path / "slow").touch()

    async with supervising(msgspec.structs.replace(settings, start_limit_s=1)) as supervisor:
        await supervisor.ensure()

        record = read_record(tmp_path / "vllm.json")
        assert record is not None
        assert record.took_s is not None
        assert record.took_s > 3


async def test_a_start_that_stands_still_is_ended(settings: EngineSettings, tmp_path: Path) -> None:
    (tmp_path / "still").touch()

    async with supervising(msgspec.structs.replace(settings, start_limit_s=2)) as supervisor:
        with pytest.raises(HostError, match="vLLM hangs: nothing moved for 2 s"):
            await supervisor.ensure()

        assert not is_running(pid_of(settings))


async def test_a_start_that_computes_for_ever_is_ended(
    settings: EngineSettings, tmp_path: Path
) -> None:
    (tmp_path / "spin").touch()

    async with supervising(msgspec.structs.replace(settings, start_limit_s=0.5)) as supervisor:
        with pytest.raises(HostError, match="vLLM hangs: it computes, and beside that"):
            await supervisor.ensure()

        assert not is_running(pid_of(settings))


async def test_stopping_ends_every_process_of_the_server(
    settings: EngineSettings, tmp_path: Path
) -> None:
    async with supervising(settings) as supervisor:
        await supervisor.ensure()
        parent = pid_of(settings)
        child = int((tmp_path / "child").read_text())  # it ignores SIGTERM

        await supervisor.stop()

        assert not is_running(parent)
        assert not is_running(child)
        assert read_record(tmp_path / "vllm.json") is None


async def test_what_a_dead_server_left_behind_is_ended_before_the_next_start(
    settings: EngineSettings, tmp_path: Path
) -> None:
    async with supervising(settings) as supervisor:
        await supervisor.ensure()
        orphan = int((tmp_path / "child").read_text())
        os.kill(pid_of(settings), signal.SIGKILL)
        await until(lambda: not is_running(pid_of(settings)), within_s=5)

        await supervisor.ensure()

        assert not is_running(orphan)


async def test_why_a_server_did_not_start_is_told_from_its_log(
    settings: EngineSettings, tmp_path: Path
) -> None:
    (tmp_path / "fail").touch()

    async with supervising(settings) as supervisor:
        with pytest.raises(HostError, match="ValueError: the model is not to its liking"):
            await supervisor.ensure()


_KILLED_BEFORE_THE_RECORD = """
import os, signal, sys
from pathlib import Path
from adaptd.serving.host.server_process import start_server

home = Path(sys.argv[1])

def die(record):
    (home / "pid").write_text(str(record.pid))
    os.kill(os.getpid(), signal.SIGKILL)

line = ["touch", str(home / "ran")]
about = {"url": "u", "settings": "s", "dtype": "float32"}
start_server(line, dict(os.environ), log=home / "log", keep=die, **about)
"""


def test_a_daemon_killed_before_it_noted_its_server_leaves_none(tmp_path: Path) -> None:
    """A server without a record would hold port and memory unseen."""
    script = [sys.executable, "-c", _KILLED_BEFORE_THE_RECORD, str(tmp_path)]
    assert subprocess.run(script, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    pid = int((tmp_path / "pid").read_text())

    until_blocking(lambda: not is_running(pid), within_s=10)

    assert not (tmp_path / "ran").exists()
    assert "ended first" in (tmp_path / "log").read_text()


async def test_a_server_whose_record_cannot_be_written_does_not_run(
    settings: EngineSettings, tmp_path: Path
) -> None:
    (tmp_path / "vllm.json").mkdir()

    async with supervising(settings) as supervisor:
        with pytest.raises(OSError, match="vllm"):
            await supervisor.ensure()

        assert not command_lines_with(f"--port {settings.port}")


def command_lines_with(words: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if words in line]


async def test_a_taken_port_is_told_before_anything_starts(settings: EngineSettings) -> None:
    with socket.create_server(("127.0.0.1", settings.port)):
        async with supervising(settings) as supervisor:
            with pytest.raises(HostError, match=f"port {settings.port}: cannot be taken"):
                await supervisor.ensure()
            assert not supervisor.log_path.exists()


async def test_a_process_that_took_over_the_pid_is_neither_adopted_nor_ended(
    settings: EngineSettings, tmp_path: Path
) -> None:
    async with supervising(settings) as supervisor:
        await supervisor.ensure()
        record = read_record(tmp_path / "vllm.json")
        assert record is not None
        stranger = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
        try:
            await supervisor.stop()
            later = msgspec.structs.replace(record, pid=stranger.pid, start_ticks=2**62)
            (tmp_path / "vllm.json").write_bytes(msgspec.json.encode(later))

            await supervisor.ensure()

            assert pid_of(settings) != stranger.pid
            assert is_running(stranger.pid)
        finally:
            stranger.kill()
            await stranger.wait()


async def test_a_format_of_auto_is_decided_when_a_server_starts_and_not_before(
    settings: EngineSettings,
) -> None:
    asked: list[str] = []

    def decide() -> str:
        asked.append("asked")
        return "float16"

    automatic = msgspec.structs.replace(settings, dtype="auto")
    async with EngineSupervisor(automatic, home=settings.base_dir, dtype=decide) as first:
        await first.ensure()
        assert asked == ["asked"]
        assert command_lines_with(f"--port {settings.port}")[0].count("--dtype float16") == 1
        assert first.running_dtype() == "float16"
    async with supervising(automatic) as second:  # decides nothing: the server runs
        await second.ensure()

        assert not second.status.stale
        assert second.running_dtype() == "float16"
        await second.stop()
        assert second.running_dtype() is None
