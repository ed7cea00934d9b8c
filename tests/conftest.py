"""Fixtures that several test files share. Each partner is started once a session, on first use."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker import ROOT, Broker
from tests.tiny_model import make_tiny_base

SMOLLM2 = ROOT / "var" / "bases" / "smollm2-135m"


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
