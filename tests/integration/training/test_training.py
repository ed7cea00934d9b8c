"""The real training child on a tiny model: its learning, its files, its faults."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

from adaptd.daemon.domain.bases import base_digest
from adaptd.daemon.domain.states import AdapterState, FailureCause, RunState
from adaptd.daemon.training.adapter_files import CONFIG, PROBES, check_files, tensor_names
from adaptd.daemon.training.job import (
    EXIT_CODES,
    EXIT_LOCKED,
    LOCK_FILE,
    PARENT_PID,
    Done,
    Failed,
    Job,
    Line,
    Parent,
    TrainingProgress,
)
from adaptd.daemon.training.launcher import start_child
from adaptd.daemon.training.lora_rules import config_problems, key_problems
from tests.support import tiny_model
from tests.support.tiny_model import HIDDEN, make_tiny_base, save_bf16
from tests.support.training_world import SERVED, TrainingWorld, command, rows, train
from tests.support.waiting import LIMIT_S, until, until_blocking

DAEMON = f"""
import os, subprocess, sys, time
child = subprocess.Popen(sys.argv[1:], env=os.environ | dict({PARENT_PID}=str(os.getpid())))
print(child.pid, flush=True)
time.sleep(100)
"""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Job:
    """The job that the service makes of a run."""

    async def planned() -> Job:
        world = TrainingWorld(tmp_path_factory.mktemp("training"), tiny_base)
        return await world.job(await world.claimed_run())

    return asyncio.run(planned())


@pytest.fixture(scope="module")
def trained(job: Job) -> list[Line]:
    code, lines = train(job)
    assert code == 0, lines[-1]
    return lines


@pytest.fixture(scope="module")
def adapter(trained: list[Line]) -> Path:
    last = trained[-1]
    assert isinstance(last, Done)
    return Path(last.path)


def test_it_learns_and_says_so_step_by_step(trained: list[Line], job: Job) -> None:
    steps = [
        line for line in trained if isinstance(line, TrainingProgress) and line.phase == "training"
    ]

    assert [line.step for line in steps] == list(range(1, job.steps + 1))
    first, last = steps[0], steps[-1]
    assert first.loss is not None
    assert last.loss is not None
    assert last.loss < 0.5 * first.loss
    assert last.eta_s == 0
    assert (last.tokens_per_s or 0) > 0


def test_the_adapter_is_what_vllm_takes(adapter: Path, job: Job) -> None:
    manifest = check_files(adapter)
    config = json.loads((adapter / CONFIG).read_text())

    assert config_problems(config, SERVED) == []
    assert key_problems(tensor_names(adapter), SERVED) == []
    assert len(tensor_names(adapter)) == 4 * 2 * 2  # layers, modules, A and B
    assert manifest.base_digest == job.base_digest
    assert str(job.base_dir) not in (adapter / CONFIG).read_text()
    assert {oct(path.stat().st_mode & 0o777) for path in adapter.iterdir()} == {"0o444"}


def test_probes_tell_base_and_adapter_apart_token_by_token(adapter: Path) -> None:
    probes = json.loads((adapter / PROBES).read_text())["probes"]

    wanted = [row["input_ids"] for row in rows(10, seed=5)]
    assert [probe["ids"] for probe in probes] == wanted
    for probe in probes:
        assert len(probe["base"]) == len(probe["adapter"]) == len(probe["ids"])
        assert probe["base"][0] == probe["adapter"][0] == 0.0
        assert all(value < 0 for value in probe["base"][1:])
        answer = probe["context_tokens"]
        assert (
            probe["adapter"][answer] > probe["base"][answer] + 1
        )  # the adapter has learnt the answer


async def test_a_killed_child_resumes_to_the_very_same_adapter(
    tmp_path: Path, tiny_base: Path, adapter: Path
) -> None:
    world = TrainingWorld(tmp_path / "home", tiny_base)
    run = await world.claimed_run()

    async with asyncio.TaskGroup() as group:
        group.create_task(world.service.train(run))
        await until(lambda: world.at_step(run, 5), within_s=LIMIT_S)
        pid = (await world.runs.get(run.run_id)).pid
        assert pid, "0 would be everybody in our own process group"
        os.kill(pid, signal.SIGKILL)

    done = await world.runs.get(run.run_id)
    assert (done.state, done.attempts) == (RunState.TRAINED, 2), done.reason
    row = await world.adapters.get(done.adapter or "")
    manifest = check_files(Path(row.path))
    assert manifest.figures["resumed_from"] >= 4
    assert row.content_hash == check_files(adapter).content_hash
    assert row.state is AdapterState.CANDIDATE
    assert not list((world.home / "runs" / run.run_id).glob("checkpoints"))


def test_training_continues_from_the_parent(tmp_path: Path, job: Job, adapter: Path) -> None:
    parent = Parent(name="support@v1-00000000", path=str(adapter))
    more = {"parent": parent, "steps": 2, "learning_rate": 1e-3, "directory": str(tmp_path)}

    code, lines = train(msgspec.structs.replace(job, **more))

    assert code == 0, lines[-1]
    last = lines[-1]
    assert isinstance(last, Done)
    assert last.figures["loss_first"] < 0.5, "it began where the parent had ended"
    assert last.content_hash != check_files(adapter).content_hash


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path, job: Job) -> None:
    base = make_tiny_base(tmp_path / "broken")
    size = json.loads((base / "config.json").read_text())["vocab_size"]
    weights = tiny_model._weights(size, 0)
    save_bf16(base / "model.safetensors", weights | {"model.norm.weight": np.full(HIDDEN, np.nan)})
    changes = {"base_dir": str(base), "base_digest": base_digest(base)}

    assert_fails(job, FailureCause.NAN, "the loss of step 1 is nan", tmp_path / "run", **changes)


def test_a_training_past_its_time_stops_by_itself(tmp_path: Path, job: Job) -> None:
    assert_fails(job, FailureCause.TIMEOUT, "over at step 1 of 12", tmp_path, max_time_s=0.01)


def assert_fails(job: Job, cause: FailureCause, words: str, run: Path, **changes: Any) -> None:
    """Demand the cause in the exit code and, with words, on the last line."""
    code, lines = train(msgspec.structs.replace(job, directory=str(run), **changes))

    last = lines[-1]
    assert isinstance(last, Failed)
    assert (last.cause, code) == (cause, EXIT_CODES[cause])
    assert words in last.message


def test_a_second_trainer_on_a_run_directory_leaves_at_once(tmp_path: Path, job: Job) -> None:
    words = command(msgspec.structs.replace(job, directory=str(tmp_path)))
    first = subprocess.Popen(words, stdout=subprocess.PIPE)
    try:
        until_blocking(lambda: is_locked(tmp_path), within_s=30)
        second = subprocess.run(words, capture_output=True, check=False, timeout=LIMIT_S)
        assert (second.returncode, second.stdout) == (EXIT_LOCKED, b"")
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()


@pytest.mark.timeout(300)  # the child runs a quarter of the time
async def test_pauses_change_nothing_in_what_is_learnt(
    tmp_path: Path, job: Job, trained: list[Line]
) -> None:
    async def unheard(_: TrainingProgress) -> None:
        pass

    async def always() -> bool:
        return True

    beside = msgspec.structs.replace(job, directory=str(tmp_path), max_time_s=200)
    began = time.monotonic()
    async with start_child(beside, waiting=lambda: 8) as child:
        done = await child.result(limit_s=200, on_progress=unheard, wanted=always)

    assert child.paused_s > 0
    assert 0 < done.figures["paused_s"] <= child.paused_s + 0.1  # the figure is rounded
    assert done.figures["train_s"] <= time.monotonic() - began - done.figures["paused_s"] + 0.2
    assert isinstance(trained[-1], Done)
    assert done.content_hash == trained[-1].content_hash


@pytest.mark.parametrize("stopped", [False, True])
def test_a_trainer_dies_with_its_daemon(tmp_path: Path, job: Job, stopped: bool) -> None:
    words = command(msgspec.structs.replace(job, directory=str(tmp_path)))
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, *words], stdout=subprocess.PIPE)
    assert daemon.stdout
    child = psutil.Process(int(daemon.stdout.readline()))
    until_blocking(lambda: is_locked(tmp_path), within_s=30)
    if stopped:  # as in a pause for requests
        child.suspend()
        until_blocking(lambda: child.status() == psutil.STATUS_STOPPED, within_s=10)

    daemon.kill()
    daemon.communicate()

    until_blocking(lambda: not child.is_running(), within_s=10)


def test_a_trainer_whose_daemon_is_already_gone_does_nothing(tmp_path: Path, job: Job) -> None:
    words = command(msgspec.structs.replace(job, directory=str(tmp_path)))
    stranger = os.environ | {PARENT_PID: "1"}
    done = subprocess.run(words, env=stranger, capture_output=True, check=False, timeout=LIMIT_S)
    assert (done.returncode, done.stdout) == (1, b"")
    assert not (tmp_path / LOCK_FILE).exists()


def is_locked(directory: Path) -> bool:
    """Ask the kernel, without taking the lock from the child that is about to take it."""
    if not (directory / LOCK_FILE).exists():
        return False
    inode = (directory / LOCK_FILE).stat().st_ino
    return any(f":{inode} " in line for line in Path("/proc/locks").read_text().splitlines())
