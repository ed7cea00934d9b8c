"""Fixtures that several test files share. Each partner is started once a session, on first use."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import pytest_timeout

from tests.support.broker import ROOT, Broker
from tests.support.tiny_model import make_tiny_base
from tests.support.vllm_server import START_S, TinyServer
from tests.support.waiting import Patience

TESTS = Path(__file__).parent
# Files whose tests use vLLM in ways that no fixture shows, or train; those with their own brokers.
TRAINING = {
    "test_doctor_vllm",
    "test_supervisor_vllm",
    "test_evaluation",
    "test_loop",
    "test_net_checkpoint",
    "test_receipt_vllm",
    "test_training",
    "test_training_methods",
    "test_training_parts",
    "test_vllm_client",
}
OWN_BROKER = {
    "test_backlog_memory",
    "test_backup_restore",
    "test_daemon_kafka",
    "test_kafka_security",
}
# No example has a deadline: a slow machine is no finding. None is kept: a checkout may belong to
# somebody else.
hypothesis.settings.register_profile(
    "tests",
    deadline=None,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tests")
SMOLLM2 = ROOT / "var" / "bases" / "smollm2-135m"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Place each test where its partner runs, and give the first to use vLLM time for its start."""
    for item in items:
        partners = {"vllm", "broker"}.intersection(getattr(item, "fixturenames", ()))
        if "unit" not in item.path.relative_to(TESTS).parts:
            item.add_marker(pytest.mark.xdist_group(_group(item, partners)))
        if "vllm" in partners and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(START_S + 120))


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: Any, settings: Any) -> bool:
    """Count a test's limit, like every wait, in seconds of a quiet machine; see support.waiting."""
    patience = Patience(settings.timeout)

    def look(*_: object) -> None:
        __tracebackhide__ = True
        if (left_s := patience.left_s()) > 0:
            signal.setitimer(signal.ITIMER_REAL, max(1.0, left_s))
        else:
            pytest_timeout.timeout_sigalrm(item, settings)

    def cancel() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    item.cancel_timeout = cancel
    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout)
    return True


def _group(item: pytest.Item, partners: set[str]) -> str:
    """What runs on one worker, one after the other: two brokers or two vLLMs are one too many."""
    if item.path.stem in TRAINING or "vllm" in partners:
        return "vllm"
    return "kafka" if item.path.stem in OWN_BROKER or partners else item.path.stem


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
