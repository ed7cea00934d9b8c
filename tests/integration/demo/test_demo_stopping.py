"""The demo is told to end: one line, the signal's exit code, and nothing of it is left."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.broker import ROOT
from tests.support.waiting import until_blocking

WITHIN_S = 20
SAID = "adaptd demo: stopped; everything it started has ended"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that the demo takes for a checkout, without a base model yet."""
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "kafka").symlink_to(ROOT / "var" / "kafka")
    return tmp_path


@pytest.fixture
def demo(checkout: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        env = {name: text for name, text in os.environ.items() if not name.startswith("ADAPTD_")}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        with (checkout / "said").open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "adaptd.daemon.cli", "demo"],
                cwd=checkout,
                env=env | {"PYTHONPATH": str(ROOT / "src")},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
    for pid in of_the_demo(checkout):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def of_the_demo(checkout: Path) -> list[int]:
    """Processes that name the folder in their command line or environment, or work in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                where = str((entry / "cwd").readlink())
                if str(checkout).encode() in words or where.startswith(str(checkout)):
                    found.append(int(entry.name))
    return found


def assert_ended(process: subprocess.Popen[bytes], checkout: Path, code: int) -> None:
    assert process.wait(WITHIN_S) == code
    said = (checkout / "said").read_text()
    assert said.splitlines()[-1] == SAID
    assert "Traceback" not in said
    assert of_the_demo(checkout) == []


def test_ctrl_c_while_the_base_model_is_made(
    checkout: Path, demo: Callable[[], subprocess.Popen[bytes]]
) -> None:
    process = demo()
    log = checkout / "var" / "demo" / "logs" / "base-model.log"
    until_blocking(lambda: log.exists() and b"reading" in log.read_bytes(), within_s=60)

    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it, to all of the group

    assert_ended(process, checkout, 130)


@pytest.mark.usefixtures("base")
def test_sigterm_while_vllm_starts(
    checkout: Path, demo: Callable[[], subprocess.Popen[bytes]]
) -> None:
    (checkout / "var" / "bases").symlink_to(ROOT / "var" / "bases")
    process = demo()
    until_blocking((checkout / "var" / "demo" / "vllm.json").exists, within_s=90)

    process.terminate()

    assert_ended(process, checkout, 143)
    first, *others = (checkout / "said").read_text().splitlines()
    assert re.fullmatch(
        r"adaptd demo: about \d+ minutes on this machine \(.+\); at most \d+", first
    )
    assert not [line for line in others if "pid=" in line]  # what vLLM logs
