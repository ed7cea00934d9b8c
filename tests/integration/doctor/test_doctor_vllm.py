"""The doctor asks real servers: ours with LoRA and gateway, and one without either."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from adaptd.daemon.demo.broker import free_port
from adaptd.daemon.doctor.findings import Finding, Level
from adaptd.daemon.doctor.serving import judge_bases, judge_vllm, probe_vllm
from adaptd.serving.host.launch import SPARE_LORAS
from adaptd.serving.host.supervisor import EngineSupervisor
from tests.support.engine_settings import make_engine_settings
from tests.support.tiny_model import FORMAT, make_tiny_base
from tests.support.vllm_server import START_S, TinyServer, run_apart
from tests.support.waiting import LIMIT_S


@pytest.fixture
def plain(tmp_path: Path, tiny_base: Path) -> Iterator[str]:
    """A vLLM as somebody may have started it: no LoRA, no gateway."""
    settings = make_engine_settings(
        url=f"http://127.0.0.1:{free_port()}",
        base_name="tiny",
        base_dir=tiny_base,
        extra_args=("--no-enable-lora",),
        dtype=FORMAT,
        start_limit_s=LIMIT_S,
    )

    async def start() -> None:
        async with EngineSupervisor(settings, home=tmp_path) as supervisor:
            await supervisor.ensure()

    async def stop() -> None:
        async with EngineSupervisor(settings, home=tmp_path) as supervisor:
            await supervisor.stop()

    try:
        run_apart(start())
        yield settings.url
    finally:
        run_apart(stop())


def errors(findings: list[Finding]) -> list[str]:
    return [finding.what for finding in findings if finding.level is Level.ERROR]


def test_a_server_as_adaptd_starts_it_has_nothing_wrong(vllm: TinyServer) -> None:
    facts = probe_vllm(vllm.url, vllm.control_token)
    assert facts.max_loras == vllm.settings.max_loras + SPARE_LORAS
    found = judge_vllm(vllm.url, facts, managed=True, aliases=1)
    found += judge_bases([("support", "tiny")], {"tiny": vllm.base_dir}, facts.base_root)
    assert errors(found) == []


def test_a_server_with_too_few_slots_or_another_base_is_found(
    vllm: TinyServer, tmp_path: Path
) -> None:
    facts = probe_vllm(vllm.url, vllm.control_token)
    few = judge_vllm(vllm.url, facts, managed=True, aliases=2)
    assert errors(few) == [f"too few LoRA slots: {4 + SPARE_LORAS}, and 2 aliases need 6"]
    other = make_tiny_base(tmp_path / "other", seed=5)
    wrong = judge_bases([("support", "tiny")], {"tiny": other}, facts.base_root)
    assert "other weights" in errors(wrong)[0]


def test_a_server_that_does_not_know_our_token_is_not_taken_for_ours(vllm: TinyServer) -> None:
    facts = probe_vllm(vllm.url, "wrong")
    assert not facts.is_vllm
    assert "port in use" in errors(judge_vllm(vllm.url, facts, managed=True, aliases=1))[0]


@pytest.mark.timeout(START_S + 120)
def test_a_server_without_lora_and_gateway_is_found(plain: str) -> None:
    facts = probe_vllm(plain, None)
    assert (facts.is_vllm, facts.lora, facts.has_gateway) == (True, False, False)
    found = errors(judge_vllm(plain, facts, managed=False, aliases=1))
    assert found[0] == "vLLM runs without LoRA"
    assert "without the gateway" in found[1]
    assert msgspec.structs.asdict(facts)["base"] == "tiny"
