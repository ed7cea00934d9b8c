"""A child's start and end, whatever it is."""

from pathlib import Path

import psutil
import pytest

from daemon.domain.states import FailureCause
from daemon.training.job import EXIT_LOCKED, PARENT_PID, Done, Progress, encode_line
from daemon.training.launcher import LockedError, TrainingError, start
from tests.training_world import a_job
from tests.waiting import LIMIT_S, until


async def unheard(_: Progress) -> None:
    pass


async def always() -> bool:
    return True


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
