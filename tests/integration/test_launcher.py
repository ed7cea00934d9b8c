"""A child's start and end, whatever it is."""

import asyncio
import sys
import time
from pathlib import Path

import psutil
import pytest

from daemon.domain.states import FailureCause
from daemon.training.job import EXIT_LOCKED, PARENT_PID, Done, Progress, encode_line
from daemon.training.launcher import LockedError, TrainingError, start
from daemon.training.pauses import LONGEST_PAUSE_S
from tests.training_world import a_job
from tests.waiting import LIMIT_S, until


async def unheard(_: Progress) -> None:
    pass


async def always() -> bool:
    return True


STEP = encode_line(Progress(phase="training", step=1, total=2)).decode().strip()
DONE = encode_line(Done(path="/runs/1/adapter", content_hash="00")).decode().strip()


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script, "child")


async def test_a_done_line_and_exit_0_are_the_result(tmp_path: Path) -> None:
    line = encode_line(Done(path="/runs/1/adapter", content_hash="00")).decode().strip()
    script = shell(f"echo noise; printf '%s\\n' '{line}'")
    async with start(a_job(tmp_path), command=script) as child:
        done = await child.result(limit_s=LIMIT_S, on_progress=unheard, wanted=always)
    assert done == Done(path="/runs/1/adapter", content_hash="00")


async def test_a_done_line_does_not_hide_a_bad_end(tmp_path: Path) -> None:
    line = encode_line(Done(path="/runs/1/adapter", content_hash="00")).decode().strip()
    script = shell(f"printf '%s\\n' '{line}'; kill -9 $$")
    async with start(a_job(tmp_path), command=script) as child:
        with pytest.raises(TrainingError) as raised:
            await child.result(limit_s=LIMIT_S, on_progress=unheard, wanted=always)
    assert raised.value.cause is FailureCause.KILLED


async def test_a_child_past_its_time_is_ended_with_its_whole_group(tmp_path: Path) -> None:
    script = shell("trap '' TERM; sleep 60 & echo $! > grandchild; while :; do sleep 1; done")
    note = tmp_path / "run" / "grandchild"
    async with start(a_job(tmp_path), command=script, poll_s=0.05, grace_s=0.2) as child:
        await until(lambda: note.exists() and note.read_text().strip(), within_s=10)
        with pytest.raises(TrainingError) as raised:
            await child.result(limit_s=0.2, on_progress=unheard, wanted=always)
    assert raised.value.cause is FailureCause.TIMEOUT
    assert not psutil.pid_exists(child.pid)
    await until(lambda: not psutil.pid_exists(int(note.read_text())), within_s=10)


async def test_a_locked_directory_is_told_from_a_failure(tmp_path: Path) -> None:
    async with start(a_job(tmp_path), command=shell(f"exit {EXIT_LOCKED}")) as child:
        with pytest.raises(LockedError):
            await child.result(limit_s=LIMIT_S, on_progress=unheard, wanted=always)


async def test_an_interpreter_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="error: cannot start /nowhere/python"):
        async with start(a_job(tmp_path), python=Path("/nowhere/python")):
            pass


async def test_the_child_gets_no_settings_of_ours_but_whom_to_die_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTD_TOKEN", "secret")
    async with start(a_job(tmp_path), command=shell("env > seen")) as child:
        with pytest.raises(TrainingError):
            await child.result(limit_s=LIMIT_S, on_progress=unheard, wanted=always)
    seen = (tmp_path / "run" / "seen").read_text()
    assert "secret" not in seen
    assert f"{PARENT_PID}=" in seen


async def test_a_child_gives_way_and_its_pauses_count_against_no_limit(tmp_path: Path) -> None:
    script = shell(f"echo '{STEP}'; sleep 0.5; echo '{DONE}'")
    async with start(a_job(tmp_path), command=script, waiting=lambda: 1) as child:
        async with asyncio.timeout(20):
            done = await child.result(limit_s=2, on_progress=unheard, wanted=always)

    assert done.content_hash == "00"
    assert child.paused_s >= LONGEST_PAUSE_S


async def test_a_child_is_told_for_how_long_it_was_stopped(tmp_path: Path) -> None:
    read = f"{sys.executable} -c 'from daemon.training.worker.process import *; print(paused_s())'"
    script = shell(f"{read} > before; echo '{STEP}'; sleep 1; {read} > after; echo '{DONE}'")
    async with start(a_job(tmp_path), command=script, waiting=lambda: 1) as child:
        await child.result(limit_s=20, on_progress=unheard, wanted=always)

    before, after = (float((tmp_path / "run" / name).read_text()) for name in ("before", "after"))
    assert before == 0
    assert LONGEST_PAUSE_S <= after <= child.paused_s + 0.001


async def test_a_child_gives_way_only_once_it_dies_with_the_daemon(tmp_path: Path) -> None:
    script = shell(f"sleep 1; echo '{STEP}'; sleep 60")
    async with start(a_job(tmp_path), command=script, poll_s=0.05, waiting=lambda: 1) as child:
        process, paused = psutil.Process(child.pid), []

        async def heard(_: Progress) -> None:
            paused.append(child.paused_s)

        with pytest.raises(TrainingError, match="timeout"):
            await child.result(limit_s=1.5, on_progress=heard, wanted=always)
        assert paused == [0.0]
        assert process.is_running()
    assert not process.is_running()


@pytest.mark.parametrize("script", ["sleep 60", "trap '' TERM; while :; do sleep 1; done"])
async def test_a_stopped_child_ends_as_soon_as_any_other(tmp_path: Path, script: str) -> None:
    child_script = shell(f"echo '{STEP}'; {script}")
    async with start(
        a_job(tmp_path), command=child_script, grace_s=0.5, waiting=lambda: 1
    ) as child:
        process = psutil.Process(child.pid)
        result = asyncio.ensure_future(child.result(limit_s=60, on_progress=unheard, wanted=always))
        await until(lambda: process.status() == psutil.STATUS_STOPPED, within_s=10)
        result.cancel()
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert not process.is_running()
