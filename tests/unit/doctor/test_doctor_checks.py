"""Every finding the doctor can have, from facts alone."""

import resource
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from adaptd.consumers.kafka.topic_admin import Cluster
from adaptd.consumers.kafka.topic_advice import TopicSettings
from adaptd.daemon.doctor.broker import judge_topics
from adaptd.daemon.doctor.examine import how_to_start
from adaptd.daemon.doctor.findings import Finding, Level
from adaptd.daemon.doctor.machine import (
    check_home,
    judge_daemon,
    judge_extra,
    judge_memory,
    missing_modules,
    port_is_taken,
    store_is_held,
)
from adaptd.daemon.doctor.serving import (
    VllmFacts,
    judge_bases,
    judge_format,
    judge_slots,
    judge_vllm,
)
from adaptd.daemon.doctor.traffic import judge_maturity
from adaptd.daemon.domain.calibration import Calibration
from adaptd.daemon.domain.machine import Machine
from adaptd.daemon.settings import Settings
from tests.support.tiny_model import make_tiny_base

VLLM = VllmFacts(
    answers=True, is_vllm=True, has_gateway=True, lora=True, runtime_loading=True, max_loras=4
)


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def judged(
    found: tuple[Cluster, list[TopicSettings]] | str, *, creates: bool = True
) -> list[Finding]:
    return judge_topics("b:9092", found, creates=creates, dedupe_window_s=86_400)


def judged_settings(
    *, partitions: int = 3, config: Mapping[str, str] = {"cleanup.policy": "delete"}
) -> list[Finding]:
    names = ("interactions.v1", "feedback.v1")
    cluster = Cluster(cluster_id=None, topics=dict.fromkeys(names, (None, partitions)))
    settings = [
        TopicSettings(name=name, partitions=partitions, replicas=1, config=config) for name in names
    ]
    return judged((cluster, settings))


def replaced(**changes: object) -> VllmFacts:
    return VllmFacts(**({name: getattr(VLLM, name) for name in VLLM.__struct_fields__} | changes))


def test_a_broker_that_does_not_answer_is_an_error_with_a_way_out() -> None:
    found = only(judged("NoBrokersAvailable"))
    assert found.level is Level.ERROR
    assert "b:9092" in found.what
    assert "ADAPTD_KAFKA_BOOTSTRAP" in found.remedy


def test_no_broker_set_is_only_a_note() -> None:
    assert only(judge_topics(None, "", creates=False, dedupe_window_s=1)).level is Level.NOTE


def test_a_missing_topic_is_an_error_unless_adaptd_creates_it() -> None:
    some = Cluster(cluster_id=None, topics={"interactions.v1": (None, 3)})
    refused = only(judged((some, []), creates=False))
    assert refused.level is Level.ERROR
    assert "feedback.v1" in refused.what
    assert only(judged((some, []))).level is Level.NOTE


def test_one_partition_is_a_warning() -> None:
    assert [found.level for found in judged_settings(partitions=1)] == [Level.WARNING] * 2


def test_topics_that_are_kept_well_are_fine_and_unknown_settings_a_note() -> None:
    assert only(judged_settings()).level is Level.OK
    assert [found.level for found in judged_settings(config={})] == [Level.NOTE]


def test_topics_that_lose_events_are_warned_of() -> None:
    found = judged_settings(config={"cleanup.policy": "compact,delete", "retention.ms": "3600000"})
    assert {item.level for item in found} == {Level.WARNING}
    assert len(found) == 4


def test_a_vllm_without_lora_is_found() -> None:
    found = judge_vllm("u", replaced(lora=False), managed=True, aliases=1)
    assert "without LoRA" in only(found).what


def test_a_vllm_that_cannot_load_at_runtime_is_found() -> None:
    found = judge_vllm("u", replaced(runtime_loading=False), managed=True, aliases=1)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in only(found).remedy


def test_too_few_slots_for_the_aliases_are_found() -> None:
    assert judge_slots(4, aliases=1) == []
    assert "--max-loras 6" in only(judge_slots(4, aliases=2)).remedy


def test_a_vllm_without_the_gateway_is_found() -> None:
    found = judge_vllm("u", replaced(has_gateway=False), managed=False, aliases=1)
    assert "--middleware" in only(found).remedy


def test_something_else_on_the_upstream_port_is_an_error() -> None:
    found = only(judge_vllm("u", VllmFacts(answers=True), managed=True, aliases=1))
    assert found.level is Level.ERROR
    assert "port in use" in found.what


@pytest.mark.parametrize(("managed", "level"), [(True, Level.NOTE), (False, Level.ERROR)])
def test_a_missing_vllm_matters_where_adaptd_does_not_start_it(managed: bool, level: Level) -> None:
    facts = VllmFacts(answers=False)
    assert only(judge_vllm("u", facts, managed=managed, aliases=1)).level is level


def test_a_base_the_settings_do_not_know_is_an_error(tmp_path: Path) -> None:
    found = only(judge_bases([("support", "llama")], {}, None))
    assert found.level is Level.ERROR
    assert "[bases]" in found.remedy


def test_a_served_base_with_other_weights_is_an_error(tmp_path: Path) -> None:
    ours, other = make_tiny_base(tmp_path / "a", seed=0), make_tiny_base(tmp_path / "b", seed=1)
    wanted, bases = [("support", "tiny")], {"tiny": ours}
    assert only(judge_bases(wanted, bases, str(ours))).level is Level.OK
    assert "other weights" in only(judge_bases(wanted, bases, str(other))).what


def test_two_bases_under_one_vllm_are_an_error(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "a")
    found = judge_bases([("one", "a"), ("two", "b")], {"a": base, "b": base}, None)
    assert [f.level for f in found] == [Level.OK, Level.OK, Level.ERROR]


def test_a_missing_extra_names_the_modules_and_the_setting() -> None:
    missing = missing_modules(sys.executable, ["json", "no_such_module_of_ours"])
    assert missing == ["no_such_module_of_ours"]
    found = judge_extra("train", missing)
    assert found.level is Level.ERROR
    assert "adaptd[train]" in found.remedy
    assert "ADAPTD_TRAINER_PYTHON" in found.remedy


def test_an_interpreter_that_does_not_exist_is_an_error() -> None:
    missing = missing_modules("/nowhere/python", ["json"])
    assert judge_extra("train", missing).level is Level.ERROR


def test_an_unwritable_home_is_an_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    found = only(check_home(blocked / "home"))
    assert found.level is Level.ERROR
    assert "ADAPTD_HOME" in found.remedy
    assert only(check_home(tmp_path / "new")).check == "store"


def test_a_folder_whose_filesystem_takes_no_files_is_an_error_for_root_too() -> None:
    found = only(check_home(Path("/proc/adaptd")))
    assert found.level is Level.ERROR
    assert "/proc cannot be written" in found.what
    assert "free" in found.what


def test_a_folder_that_takes_a_name_but_no_bytes_is_an_error(tmp_path: Path) -> None:
    """As a full disk does; and the try leaves nothing behind."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        found = only(check_home(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found.level is Level.ERROR
    assert "Make room" in found.remedy
    assert list(tmp_path.iterdir()) == []
    assert only(check_home(tmp_path)).level is not Level.ERROR
    assert list(tmp_path.iterdir()) == []


def test_a_store_held_by_another_process_is_noticed(tmp_path: Path) -> None:
    store = tmp_path / "store.duckdb"
    assert not store_is_held(store)
    store.write_bytes(b"x")
    assert not store_is_held(store)
    hold = (
        "import fcntl,sys;f=open(sys.argv[1],'r+b');fcntl.lockf(f,fcntl.LOCK_EX);"
        "print('held',flush=True);sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert store_is_held(store)
        holder.communicate(b"")


def test_a_port_in_use_is_noticed() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port_is_taken("127.0.0.1", port)
    assert not port_is_taken("127.0.0.1", port)


@pytest.mark.parametrize(
    ("answers", "taken", "held", "level", "check"),
    [
        (True, True, True, Level.OK, "daemon"),
        (False, True, False, Level.ERROR, "port"),
        (False, False, True, Level.ERROR, "store"),
        (False, False, False, Level.NOTE, "daemon"),
    ],
)
def test_a_daemon_that_runs_or_is_kept_from_it(
    answers: bool, taken: bool, held: bool, level: Level, check: str
) -> None:
    found = judge_daemon("h:1", daemon_answers=answers, port_taken=taken, store_held=held)
    assert (found.level, found.check) == (level, check)


def test_maturity_must_cover_four_mean_delays_of_the_slower_arm() -> None:
    delays = {"live": (500, 10.0), "canary": (40, 20.0)}
    short = judge_maturity("support", timedelta(seconds=60), delays)
    assert short.level is Level.WARNING
    assert "80 s" in short.remedy
    assert judge_maturity("support", timedelta(seconds=19), delays).level is Level.ERROR
    assert judge_maturity("support", timedelta(seconds=80), delays).level is Level.OK


def test_few_delays_are_not_judged() -> None:
    assert judge_maturity("s", timedelta(0), {"live": (3, 1e6)}).level is Level.NOTE


def a_calibration(*, gib: int = 16, **speeds: float) -> Calibration:
    return Calibration(
        fingerprint="f",
        machine=Machine(processor="p", instruction_sets=("avx2",), cores=2, memory_bytes=gib << 30),
        torch="2",
        dtype="float32" if speeds.get("float32", 0) > speeds.get("bfloat16", 0) else "bfloat16",
        reason="it is fast",
        speeds=speeds,
        took_s=5,
        measured_at=datetime.now(UTC),
    )


NEEDED = {"bfloat16": 5 << 30, "float32": 8 << 30}


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
def test_a_format_that_is_fast_enough_is_fine(dtype: str | None) -> None:
    calibration = a_calibration(bfloat16=100, float32=149)

    assert judge_format(dtype, calibration, NEEDED).level is Level.OK


def test_a_slow_format_is_a_warning_with_the_memory_that_the_fast_one_needs() -> None:
    finding = judge_format("bfloat16", a_calibration(bfloat16=16, float32=127), NEEDED)

    assert finding.level is Level.WARNING
    assert "7.9 x slower here than float32" in finding.what
    assert "8.0 GiB" in finding.what
    assert "auto" in finding.remedy


def test_a_fast_format_that_does_not_fit_is_not_proposed() -> None:
    finding = judge_format("bfloat16", a_calibration(gib=6, bfloat16=16, float32=127), NEEDED)

    assert finding.level is Level.WARNING
    assert "Give it 8.0 GiB" in finding.remedy


def test_only_formats_that_auto_would_take_are_proposed() -> None:
    finding = judge_format(
        "bfloat16", a_calibration(bfloat16=100, float16=900, float32=110), NEEDED
    )

    assert finding.level is Level.OK


def test_a_format_that_was_set_is_not_praised_with_the_reason_for_another() -> None:
    finding = judge_format("bfloat16", a_calibration(bfloat16=100, float32=130), NEEDED)

    assert finding.what == "bfloat16, fast enough here"


def test_what_could_not_be_measured_is_a_warning() -> None:
    unmeasured = msgspec.structs.replace(a_calibration(), fingerprint="", reason="no torch")
    finding = judge_format(None, unmeasured, NEEDED)

    assert finding.level is Level.WARNING
    assert "no torch" in finding.what


def test_on_a_gpu_nothing_was_timed_and_nothing_is_compared() -> None:
    assert judge_format("float32", a_calibration(), NEEDED).level is Level.OK


@pytest.mark.parametrize(
    ("limit", "available", "runs", "level"),
    [
        (8, 7, False, Level.OK),
        (4, 4, False, Level.WARNING),
        (8, 3, False, Level.WARNING),
        (8, 3, True, Level.OK),  # adaptd itself uses what is not free
    ],
)
def test_memory_that_does_not_suffice_is_warned_of(
    limit: int, available: int, runs: bool, level: Level
) -> None:
    gib = 2**30
    found = judge_memory(6 * gib, limit=limit * gib, available=available * gib, runs=runs)
    assert found.level is level
    assert "6.0 GiB" in found.what


def test_the_line_that_starts_the_server_by_hand_is_the_one_adaptd_uses(tmp_path: Path) -> None:
    """The CPU build needs a variable and an option, or two processes spin for its cores."""
    base = make_tiny_base(tmp_path / "tiny")
    settings = Settings(home=tmp_path / "home", bases={"tiny": base}, policies_dir=tmp_path)

    line = how_to_start(settings)

    assert "VLLM_ENABLE_V1_MULTIPROCESSING=0" in line
    assert "--distributed-executor-backend uni" in line
    assert f"ADAPTD_GATEWAY_CONFIG={(tmp_path / 'home' / 'gateway.json').resolve()}" in line
    assert "HOME=" not in line.replace("ADAPTD_HOME=", "")
