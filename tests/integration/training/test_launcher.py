"""The start and the end of a child of any kind."""

import asyncio
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from adaptd.daemon.domain.states import FailureCause
from adaptd.daemon.training.job import EXIT_LOCKED, PARENT_PID, Done, TrainingProgress, encode_line
from adaptd.daemon.training.launcher import (
    CancelledRunError,
    LockedError,
    TrainingChild,
    TrainingError,
    start_child,
)
from adaptd.daemon.training.pauses import LONGEST_PAUSE_S
from tests.support.training_world import a_job
from tests.support.waiting import LIMIT_S, until


async def unheard(_: TrainingProgress) -> None:
    pass


async def always() -> bool:
    return True


STEP = encode_line(TrainingProgress(phase="training", step=1, total=2)).decode().strip()
DONE = encode_line(Done(path="/runs/1/adapter", content_hash="00")).decode().strip()
UNTIL_GO = "while [ ! -e go ]; do sleep 0.05; done"


def shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script, "child")


async def test_a_done_line_and_exit_0_are_the_result(tmp_path: Path) -> None:
    line = encode_line(Done(path="/runs/1/adapter", content_hash="00")).decode().strip()
    script = shell(f"echo noise; printf '%s\\n' '{line}'")
    async with start_child(a_job(tmp_path), command=script) as child:
        done = await child.result(limit_s=LIMIT_S, on_progress=unheard, wanted=always)
    assert done == Done(path="/runs/1/adapter", content_hash="00")


async def test_a_done_line_does_not_hide_a_bad_end(tmp_path: Path) -> None:
    line = encode_line(Done(path="/runs/1/adapter", content_hash="00")).decode().strip()
    script = shell(f"printf '%s\\n' '{line}'; kill -9 $$")
    async with start_child(a_job(tmp_path), command=script) as child:
        with pytest.raises(TrainingError) as raised:
            await child.result(limit_s=LIMIT_S, on_progress=unheard, wanted=always)
    assert raised.value.cause is FailureCause.KILLED


async def test_a_child_past_its_time_is_ended_with_its_whole_group(tmp_path: Path) -> None:
    script = shell("trap '' TERM; sleep 60 & echo $! > grandchild; while :; do sleep 1; done")
    note = tmp_path / "run" / "grandchild"
    async with start_child(a_job(tmp_path), command=script, poll_s=0.05, grace_s=0.2) as child:
        await until(lambda: note.exists() and note.read_text().strip(), within_s=10)
        with pytest.raises(TrainingError) as raised:
            await child.result(limit_s=0.2, on_progress=unheard, wanted=always)
    assert raised.value.cause is FailureCause.TIMEOUT
    assert not psutil.pid_exists(child.pid)
    await until(lambda: not psutil.pid_exists(int(note.read_text())), within_s=10)


async def test_a_child_that_stands_still_is_ended(tmp_path: Path) -> None:
    script = shell(f"echo '{STEP}'; sleep 600")
    async with start_child(a_job(tmp_path), command=script, poll_s=0.05) as child:
        with pytest.raises(TrainingError, match=r"it hangs: nothing moved for .*") as raised:
            await child.result(limit_s=LIMIT_S, still_s=1, on_progress=unheard, wanted=always)
    assert raised.value.cause is FailureCause.TIMEOUT


async def test_a_child_that_closes_its_output_and_stays_is_ended(tmp_path: Path) -> None:
    script = shell("exec >&-; sleep 600")
    async with start_child(a_job(tmp_path), command=script, poll_s=0.05) as child:
        with pytest.raises(TrainingError, match="it hangs"):
            await child.result(limit_s=LIMIT_S, still_s=1, on_progress=unheard, wanted=always)


async def test_a_child_that_says_nothing_but_computes_may_take_its_time(tmp_path: Path) -> None:
    still_s = 2  # work of a twentieth of a core for so long keeps the child alive
    script = shell(f"echo '{STEP}'; while [ ! -e go ]; do :; done; echo '{DONE}'")
    async with start_child(a_job(tmp_path), command=script, poll_s=0.05) as child:
        result = asyncio.create_task(
            child.result(limit_s=LIMIT_S, still_s=still_s, on_progress=unheard, wanted=always)
        )
        await asyncio.wait([result], timeout=2 * still_s)
        (tmp_path / "run" / "go").touch()
        assert (await result).content_hash == "00"


async def test_a_locked_directory_is_told_from_a_failure(tmp_path: Path) -> None:
    async with start_child(a_job(tmp_path), command=shell(f"exit {EXIT_LOCKED}")) as child:
        with pytest.raises(LockedError):
            await child.result(limit_s=LIMIT_S, on_progress=unheard, wanted=always)


async def test_an_interpreter_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="error: cannot start /nowhere/python"):
        async with start_child(a_job(tmp_path), python=Path("/nowhere/python")):
            pass


async def test_the_child_gets_no_settings_of_ours_but_whom_to_die_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTD_TOKEN", "secret")
    async with start_child(a_job(tmp_path), command=shell("env > seen")) as child:
        with pytest.raises(TrainingError):
            await child.result(limit_s=LIMIT_S, on_progress=unheard, wanted=always)
    seen = (tmp_path / "run" / "seen").read_text()
    assert "secret" not in seen
    assert f"{PARENT_PID}=" in seen


async def test_a_child_gives_way_and_its_pauses_count_against_no_limit(tmp_path: Path) -> None:
    waiting, skipped_s = [1], [0.0]
    script = shell(f"echo '{STEP}'; {UNTIL_GO}; echo '{DONE}'")
    async with start_child(
        a_job(tmp_path),
        command=script,
        waiting=lambda: waiting[0],
        clock=lambda: time.monotonic() + skipped_s[0],
    ) as child:
        result = asyncio.create_task(
            child.result(limit_s=LIMIT_S, still_s=LIMIT_S, on_progress=unheard, wanted=always)
        )
        await until(lambda: child.paused_s > 0, within_s=LIMIT_S)
        skipped_s[0] = 100 * LIMIT_S  # the pause is far longer than either limit
        waiting[0] = 0
        (tmp_path / "run" / "go").touch()
        done = await result

    assert done.content_hash == "00"
    assert child.paused_s >= 100 * LIMIT_S


async def after_one_pause(child: TrainingChild, go: Path) -> Done:
    """The result of a child that waits for `go`, which comes while it is stopped."""
    result = asyncio.create_task(child.result(limit_s=LIMIT_S, on_progress=unheard, wanted=always))
    await until(lambda: child.paused_s > 0, within_s=LIMIT_S)
    await asyncio.to_thread(go.touch)
    return await result


async def test_a_child_runs_again_while_requests_still_wait(tmp_path: Path) -> None:
    script = shell(f"echo '{STEP}'; {UNTIL_GO}; echo '{DONE}'")
    async with start_child(a_job(tmp_path), command=script, waiting=lambda: 1) as child:
        done = await after_one_pause(child, tmp_path / "run" / "go")

    assert done.content_hash == "00"
    assert child.paused_s >= LONGEST_PAUSE_S


async def test_a_child_is_told_for_how_long_it_was_stopped(tmp_path: Path) -> None:
    process = "adaptd.daemon.training.worker.process"
    read = f"{sys.executable} -c 'from {process} import *; print(paused_s())'"
    script = shell(f"{read} > before; echo '{STEP}'; {UNTIL_GO}; {read} > after; echo '{DONE}'")
    async with start_child(a_job(tmp_path), command=script, waiting=lambda: 1) as child:
        await after_one_pause(child, tmp_path / "run" / "go")

    before, after = (float((tmp_path / "run" / name).read_text()) for name in ("before", "after"))
    assert before == 0
    assert LONGEST_PAUSE_S <= after <= child.paused_s + 0.001


async def test_a_child_gives_way_only_once_it_dies_with_the_daemon(tmp_path: Path) -> None:
    script = shell(f"sleep 1; echo '{STEP}'; sleep 60")
    async with start_child(
        a_job(tmp_path), command=script, poll_s=0.05, waiting=lambda: 1
    ) as child:
        process, paused_s = psutil.Process(child.pid), []

        async def heard(_: TrainingProgress) -> None:
            paused_s.append(child.paused_s)

        async def until_stopped() -> bool:
            return child.paused_s == 0

        with pytest.raises(CancelledRunError):
            await child.result(limit_s=LIMIT_S, on_progress=heard, wanted=until_stopped)
        assert paused_s == [0.0]
        assert process.is_running()
    assert not process.is_running()


@pytest.mark.parametrize(
    ("script", "grace_s", "ended_by"),
    [
        (f"echo '{STEP}'; sleep 60", LIMIT_S, signal.SIGTERM),
        (f"trap '' TERM; echo '{STEP}'; while :; do sleep 1; done", 0.5, signal.SIGKILL),
    ],
    ids=["polite", "deaf"],
)
async def test_a_stopped_child_ends_as_any_other(
    tmp_path: Path, script: str, grace_s: float, ended_by: signal.Signals
) -> None:
    async with start_child(
        a_job(tmp_path), command=shell(script), grace_s=grace_s, waiting=lambda: 1
    ) as child:
        process = psutil.Process(child.pid)
        result = asyncio.ensure_future(
            child.result(limit_s=LIMIT_S, on_progress=unheard, wanted=always)
        )
        await until(lambda: child.paused_s > 0, within_s=LIMIT_S)
        result.cancel()
    assert child.returncode == -ended_by
    assert not process.is_running()
