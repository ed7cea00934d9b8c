from pathlib import Path

import msgspec
import pytest

from adaptd.daemon.wire.errors import SettingsError
from adaptd.serving.host.launch import (
    GATEWAY_CLASS,
    CpuCores,
    command,
    digest,
    environment,
    problem_of,
    stage_of,
    wants_workers,
)
from tests.support.engine_settings import make_engine_settings

SETTINGS = make_engine_settings(
    url="http://127.0.0.1:8000",
    python=Path("/opt/python"),
    base_name="smollm2-135m",
    base_dir=Path("/models/smollm2"),
    gateway_config=Path("/var/adaptd/gateway.json"),
)


def test_the_command_bounds_what_the_trainer_may_produce() -> None:
    line = " ".join(command(SETTINGS))

    assert line.startswith("/opt/python -m vllm.entrypoints.openai.api_server ")
    assert "--enable-lora" in line
    assert "--max-lora-rank 8" in line
    assert "--lora-target-modules q_proj v_proj" in line
    assert "--host 127.0.0.1 --port 8000" in line
    assert f"--middleware {GATEWAY_CLASS}" in line


def test_a_server_without_the_gateway_is_started_without_its_class() -> None:
    bare = msgspec.structs.replace(SETTINGS, gateway_config=None)

    assert "--middleware" not in command(bare)
    assert "ADAPTD_GATEWAY_CONFIG" not in environment(bare, {}, cores=None)


def test_what_the_operator_adds_comes_last_so_that_it_wins() -> None:
    added = msgspec.structs.replace(SETTINGS, extra_args=("--max-num-seqs", "4"))

    assert command(added)[-2:] == ["--max-num-seqs", "4"]


@pytest.mark.parametrize("count", [1, 2, 64])
def test_the_cpu_build_computes_on_all_cores_it_may_use(count: int) -> None:
    cores = CpuCores(threads=count, bound=tuple(range(count)), in_one_process=False)
    env = environment(SETTINGS, {}, cores=cores)

    assert env["VLLM_CPU_OMP_THREADS_BIND"] == ",".join(map(str, range(count)))
    assert env["OMP_NUM_THREADS"] == str(count)
    assert env["OMP_WAIT_POLICY"] == "PASSIVE"
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "1"


def test_under_a_quota_threads_are_bound_to_no_core() -> None:
    env = environment(SETTINGS, {}, cores=CpuCores(threads=2, in_one_process=False))

    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert env["OMP_NUM_THREADS"] == "2"


def test_threads_of_the_engines_own_process_are_bound_to_no_core() -> None:
    env = environment(SETTINGS, {}, cores=CpuCores(threads=2, bound=(0, 1)))

    assert "VLLM_CPU_OMP_THREADS_BIND" not in env
    assert env["OMP_NUM_THREADS"] == "2"


def test_a_gpu_build_gets_no_cpu_settings() -> None:
    assert not [name for name in environment(SETTINGS, {}, cores=None) if "CPU" in name]


@pytest.mark.parametrize(
    ("exported", "bound"), [("1", "4"), ("2", "4,5"), ("7", "nobind"), ("2,1", "4,5")]
)
def test_the_operators_number_of_threads_decides_over_the_cores(exported: str, bound: str) -> None:
    cores = CpuCores(threads=2, bound=(4, 5), in_one_process=False)
    env = environment(SETTINGS, {"OMP_NUM_THREADS": exported}, cores=cores)

    assert env["OMP_NUM_THREADS"] == exported
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == bound


def test_the_operators_cpu_settings_stay_and_our_switches_do_not_give_way() -> None:
    exported = {
        "OMP_NUM_THREADS": "7",
        "VLLM_CPU_OMP_THREADS_BIND": "0-6",
        "OMP_WAIT_POLICY": "ACTIVE",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "False",
    }

    env = environment(SETTINGS, exported, cores=CpuCores(threads=1, bound=(0,)))

    assert env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    del exported["VLLM_ALLOW_RUNTIME_LORA_UPDATING"]
    assert exported.items() <= env.items()


def test_a_spin_count_of_the_operators_is_not_overruled() -> None:
    env = environment(SETTINGS, {"GOMP_SPINCOUNT": "1000"}, cores=CpuCores(threads=1, bound=(0,)))

    assert "OMP_WAIT_POLICY" not in env


def test_servers_started_differently_have_different_digests() -> None:
    assert digest(SETTINGS) != digest(msgspec.structs.replace(SETTINGS, max_lora_rank=16))


@pytest.mark.parametrize("url", ["http://10.0.0.1:8000", "http://127.0.0.1", "here"])
def test_a_server_is_started_on_this_machine_only(url: str) -> None:
    with pytest.raises(SettingsError, match=r"upstream\.url"):
        command(msgspec.structs.replace(SETTINGS, url=url))


@pytest.mark.parametrize(
    "extra",
    [
        ("--api-server-count", "2"),
        ("--max-num-seqs", "4", "--api-server-count=4"),
        ("--api_server_count", "2"),
        ("--api-server-c=2",),
        ("-asc", "2"),
    ],
)
def test_several_api_servers_are_refused_for_the_gateway_lives_in_one(
    extra: tuple[str, ...],
) -> None:
    with pytest.raises(SettingsError, match=r"upstream\.extra_args: .* several API servers"):
        command(msgspec.structs.replace(SETTINGS, extra_args=extra))


@pytest.mark.parametrize(
    "extra", [("--api-server-count", "1"), ("--api-key=2",), ("--seed", "-asc"), ("-asc=1",)]
)
def test_one_api_server_and_other_options_pass(extra: tuple[str, ...]) -> None:
    line = command(msgspec.structs.replace(SETTINGS, extra_args=extra))

    assert tuple(line[-len(extra) :]) == extra


def test_a_starting_server_says_where_it_has_come_to() -> None:
    log = "(EngineCore pid=7) INFO 11-22 17:09:43 [core.py:133] Initializing a V1 LLM engine (v0)\n"

    assert stage_of("") == "importing"
    assert stage_of(log) == "starting the engine"
    assert stage_of(log + "Starting to load model /models/x...") == "loading weights"


def test_the_first_telling_error_is_why_a_server_ended() -> None:
    log = """\
(EngineCore pid=7) ERROR 11-22 17:10:03 [core.py:1512] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-22 17:10:03 [core.py:1512] ValueError: max_lora_rank is too small
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
    assert problem_of(log) == "ValueError: max_lora_rank is too small"
    worker = "(EngineCore pid=7) ERROR 11-22 17:10:03 [m.py:3] Worker proc W-0 died unexpectedly\n"
    assert problem_of(worker + log) == "Worker proc W-0 died unexpectedly"
    assert problem_of("all well\n") == "its log names no error"


def test_on_a_cpu_the_model_runs_in_the_engines_own_process() -> None:
    line = command(SETTINGS, cores=CpuCores(threads=2))
    env = environment(SETTINGS, {}, cores=CpuCores(threads=2))

    assert line[line.index("--distributed-executor-backend") + 1] == "uni"
    assert env["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert "--distributed-executor-backend" not in command(SETTINGS)
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in environment(SETTINGS, {}, cores=None)


@pytest.mark.parametrize(
    ("given", "exported"),
    [
        (("--tensor-parallel-size", "2"), {}),
        (("-tp=2",), {}),
        (("--distributed_executor_backend", "mp"), {}),
        ((), {"VLLM_CPU_OMP_THREADS_BIND": "0-3"}),
    ],
)
def test_workers_that_the_operator_asks_for_stay_processes(
    given: tuple[str, ...], exported: dict[str, str]
) -> None:
    assert wants_workers(given, exported)
    cores = CpuCores(threads=2, in_one_process=False)

    assert "uni" not in command(SETTINGS, cores=cores)
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in environment(SETTINGS, {}, cores=cores)


@pytest.mark.parametrize("bind", ["auto", "nobind", None])
def test_nobody_asks_for_workers_by_default(bind: str | None) -> None:
    exported = {"VLLM_CPU_OMP_THREADS_BIND": bind} if bind else {}

    assert not wants_workers(("--seed", "1"), exported)
