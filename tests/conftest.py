"""Fixtures that several test files share. Each partner is started once a session, on first use."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker import ROOT, Broker
from tests.tiny_model import make_tiny_base
from tests.vllm_server import START_LIMIT_S, TinyServer

SMOLLM2 = ROOT / "var" / "bases" / "smollm2-135m"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test to use vLLM waits for its start, which the usual limit has no room for."""
    for item in items:
        uses_vllm = "vllm" in getattr(item, "fixturenames", ())
        if uses_vllm and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(START_LIMIT_S + 120))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One real Kafka for all. Use topics of your own; a test that kills it restarts it."""
    running = Broker(tmp_path_factory.mktemp("kafka"))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny Llama with tokenizer and chat template."""
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def base() -> Path:
    """The directory of SmolLM2-135M-Instruct, as `make base-model` prepares it."""
    assert (SMOLLM2 / "adaptd-digest.json").exists(), "run `make base-model` first"
    return SMOLLM2


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[TinyServer]:
    """One real vLLM for all, with the tiny base, LoRA on and the gateway in front.

    Load adapters under names of your own; a test that kills it returns once it answers again.
    """
    server = TinyServer(tmp_path_factory.mktemp("vllm"), tiny_base)
    try:
        server.start()
        yield server
    finally:
        server.stop()
