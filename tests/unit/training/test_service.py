"""The service after a child's end. The child is a few lines of shell, so no torch is needed.

The real child is in tests/integration/training/test_training.py.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from adaptd.daemon.domain.states import AdapterState, FailureCause, RunState
from adaptd.daemon.training.job import Done, Failed, TrainingProgress, encode_line, read_job
from adaptd.daemon.training.service import MAX_ATTEMPTS, TrainingService
from tests.support.tiny_model import make_tiny_base
from tests.support.training_world import TrainingWorld
from tests.support.waiting import until
from tests.unit.training.test_adapter_files import a_finished_adapter

World = Callable[..., TrainingWorld]


@pytest.fixture
def world(tmp_path: Path) -> World:
    base = make_tiny_base(tmp_path / "tiny")

    def make(script: str) -> TrainingWorld:
        return TrainingWorld(tmp_path / "home", base, child=("/bin/sh", "-c", script, "child"))

    return make


@asynccontextmanager
async def running(service: TrainingService) -> AsyncIterator[None]:
    """Run the service as the daemon does: in a group, stopped by cancellation."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(service.run())
        yield
        task.cancel()


def says(line: TrainingProgress | Done | Failed, code: int = 0) -> str:
    return f"printf '%s\\n' '{encode_line(line).decode().strip()}'; exit {code}"


@pytest.mark.parametrize("cause", [FailureCause.NAN, FailureCause.TIMEOUT, FailureCause.DATA])
async def test_a_final_cause_fails_the_run_at_once(world: World, cause: FailureCause) -> None:
    there = world(says(Failed(cause=cause, message="so it is"), 1))
    run = await there.claimed_run()

    await there.service.train(run)

    failed = await there.runs.get(run.run_id)
    assert (failed.state, failed.reason) == (RunState.FAILED, f"{cause}: so it is")
    assert (failed.attempts, failed.pid) == (1, None)


async def test_out_of_memory_is_tried_once_with_half_the_micro_batch(world: World) -> None:
    there = world(says(Failed(cause=FailureCause.OOM, message="memory ran out"), 10))
    run = await there.claimed_run()

    await there.service.train(run)

    failed = await there.runs.get(run.run_id)
    assert failed.state is RunState.FAILED
    assert (failed.attempts, failed.micro_batch) == (2, 4)
    assert failed.directory is not None
    assert read_job(Path(failed.directory) / "job.json").micro_batch == 4


async def test_a_child_that_keeps_being_killed_is_given_up(world: World) -> None:
    there = world("kill -9 $$")
    run = await there.claimed_run()

    await there.service.train(run)

    failed = await there.runs.get(run.run_id)
    assert failed.reason == "killed: the trainer was ended by SIGKILL"
    assert failed.attempts == MAX_ATTEMPTS


async def test_a_child_killed_twice_at_the_same_step_ran_out_of_memory(world: World) -> None:
    line = encode_line(TrainingProgress(phase="training", step=3, total=12)).decode().strip()
    there = world(f"printf '%s\\n' '{line}'; kill -9 $$")
    run = await there.claimed_run()

    await there.service.train(run)

    failed = await there.runs.get(run.run_id)
    assert failed.reason == "oom: the trainer was ended by SIGKILL twice at step 3"
    assert (failed.attempts, failed.micro_batch) == (4, 4)


async def test_a_child_killed_further_on_each_time_keeps_its_micro_batch(world: World) -> None:
    line = encode_line(TrainingProgress(phase="training", step=7, total=12)).decode().strip()
    counted = line.replace('"step":7', "\"step\":'$(wc -l < n)'")
    there = world(f"echo >> n; printf '%s\\n' '{counted}'; kill -9 $$")
    there.store_progress_s = 3600
    run = await there.claimed_run()

    await there.a_service().train(run)

    failed = await there.runs.get(run.run_id)
    assert failed.reason == "killed: the trainer was ended by SIGKILL"
    assert (failed.progress or {})["step"] == 1  # the others came too soon to be stored
    assert (failed.attempts, failed.stalled) == (MAX_ATTEMPTS + 1, MAX_ATTEMPTS)
    assert failed.micro_batch is None


async def test_a_run_that_took_the_daemon_along_each_time_is_given_up(world: World) -> None:
    there = world("exit 1")  # must not be started any more
    run = await there.claimed_run()
    for _ in range(MAX_ATTEMPTS):
        run = await there.runs.begin_attempt(run.run_id, directory="runs", micro_batch=None)

    await there.a_service().train(run)

    failed = await there.runs.get(run.run_id)
    assert (failed.state, failed.attempts) == (RunState.FAILED, MAX_ATTEMPTS)
    assert failed.reason == f"killed: it was started {MAX_ATTEMPTS} times in vain"


async def test_a_run_that_gets_further_with_each_start_is_never_given_up(world: World) -> None:
    there = world(says(Failed(cause=FailureCause.DATA, message="it was started"), 1))
    run = await there.claimed_run()
    for step in range(2 * MAX_ATTEMPTS):
        run = await there.runs.begin_attempt(run.run_id, directory="runs", micro_batch=None)
        await there.runs.set_progress(run.run_id, {"phase": "training", "step": step})

    await there.a_service().train(run)

    failed = await there.runs.get(run.run_id)
    assert failed.reason == "data: it was started"
    assert (failed.attempts, failed.stalled) == (2 * MAX_ATTEMPTS + 1, 1)


async def test_what_nobody_thought_of_fails_the_run_and_not_the_service(world: World) -> None:
    there = world("head -c 200000 /dev/zero | tr '\\0' x; sleep 60")  # more than one line may hold
    run = await there.claimed_run()

    await there.service.train(run)

    failed = await there.runs.get(run.run_id)
    assert (failed.state, failed.reason) == (RunState.FAILED, "error: ValueError; see the log")


async def test_a_child_that_ends_without_a_word_is_an_error(world: World) -> None:
    there = world("exit 3")
    run = await there.claimed_run()

    await there.service.train(run)

    assert (await there.runs.get(run.run_id)).reason == (
        "error: the trainer ended with code 3; see trainer.log"
    )


async def test_a_rank_the_server_does_not_serve_fails_before_a_child_starts(
    tmp_path: Path,
) -> None:
    base = make_tiny_base(tmp_path / "tiny")
    policy = "version: 1\nmodel: support\nbase: tiny\ntrain: {rank: 16}\n"
    there = TrainingWorld(tmp_path / "home", base, child=("/bin/false",), policy=policy)
    run = await there.claimed_run()

    await there.service.train(run)

    failed = await there.runs.get(run.run_id)
    assert "max_lora_rank" in (failed.reason or "")
    assert failed.pid is None


async def test_progress_and_process_are_in_the_store_while_a_child_works(world: World) -> None:
    line = (
        encode_line(TrainingProgress(phase="training", step=3, total=12, loss=0.5)).decode().strip()
    )
    there = world(f"printf '%s\\n' '{line}'; sleep 60")
    run = await there.claimed_run()

    async with running(there.service):
        await until(lambda: has_progress(there, run.run_id), within_s=10)
        seen = await there.runs.get(run.run_id)
        assert seen.pid is not None
        assert psutil.pid_exists(seen.pid)

    assert seen.progress is not None
    assert (seen.progress["step"], seen.progress["loss"]) == (3, 0.5)
    assert not psutil.pid_exists(seen.pid), "leaving the service must end the child"
    assert (await there.runs.get(run.run_id)).state is RunState.TRAINING


async def test_a_cancelled_run_ends_its_child(world: World) -> None:
    there = world("sleep 60")
    run = await there.claimed_run()

    async with running(there.service):
        seen = await until(lambda: with_pid(there, run.run_id), within_s=10)
        await there.runs.move(
            run.run_id, RunState.CANCELLED, actor="operator", reason="no", now=run.created_at
        )
        await until(lambda: not psutil.pid_exists(seen), within_s=10)

    assert (await there.runs.get(run.run_id)).reason == "no"


async def test_the_oldest_waiting_run_is_taken(world: World) -> None:
    there = world(says(Failed(cause=FailureCause.DATA, message="no"), 14))
    run = await there.a_run()

    async with running(there.service):
        await until(lambda: is_in(there, run.run_id, RunState.FAILED), within_s=10)


async def test_a_finished_adapter_is_numbered_and_moved_in_place(world: World) -> None:
    there = world("exit 1")  # must not be started at all
    run = await there.claimed_run()
    a_finished_adapter(there.home / "runs" / run.run_id)
    (there.home / "adapters" / "support@v6-00000000").mkdir(parents=True)

    await there.service.train(run)

    done = await there.runs.get(run.run_id)
    assert (done.state, done.attempts) == (RunState.TRAINED, 0)
    assert done.adapter is not None
    row = await there.adapters.get(done.adapter)
    assert (row.number, row.state) == (7, AdapterState.CANDIDATE)
    assert (Path(row.path) / "adapter_model.safetensors").exists()
    assert Path(row.path).name == row.name == f"support@v7-{row.content_hash[:8]}"


@pytest.mark.parametrize("moved", [False, True])
async def test_a_restart_between_row_and_rename_finishes_what_was_begun(
    world: World, moved: bool
) -> None:
    there = world("exit 1")
    run = await there.claimed_run()
    staged = a_finished_adapter(there.home / "runs" / run.run_id)
    row = await there.service._publication._add_version(run, staged)
    if moved:
        Path(row.path).parent.mkdir()
        staged.rename(row.path)

    await there.a_service().train(await there.runs.get(run.run_id))

    assert (await there.runs.get(run.run_id)).state is RunState.TRAINED
    assert [version.name for version in await there.adapters.list()] == [row.name]


async def test_an_adapter_whose_files_are_gone_fails_the_run_and_is_withdrawn(
    world: World,
) -> None:
    there = world("exit 1")
    run = await there.claimed_run()
    staged = a_finished_adapter(there.home / "runs" / run.run_id)
    row = await there.service._publication._add_version(run, staged)
    staged.rename(staged.with_name("elsewhere"))

    await there.a_service().train(await there.runs.get(run.run_id))

    failed = await there.runs.get(run.run_id)
    assert failed.state is RunState.FAILED
    assert "its files are gone" in (failed.reason or "")
    assert (await there.adapters.get(row.name)).state is AdapterState.RETIRED


async def has_progress(there: TrainingWorld, run_id: str) -> bool:
    return (await there.runs.get(run_id)).progress is not None


async def with_pid(there: TrainingWorld, run_id: str) -> int | None:
    return (await there.runs.get(run_id)).pid


async def is_in(there: TrainingWorld, run_id: str, state: RunState) -> bool:
    return (await there.runs.get(run_id)).state is state
