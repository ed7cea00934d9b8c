"""Children that the demo waits for: logged, ended where they stand still, left alone else."""

import sys
from pathlib import Path

import pytest

from adaptd.daemon.demo.children import run_to_end
from adaptd.daemon.wire.errors import AdaptdError
from tests.support.waiting import until_blocking

TALKS = "import time\nfor n in range(15): print(n, flush=True); time.sleep(0.2)"
LEAVES_A_CHILD = (
    "import os,subprocess,time\n"
    "child = subprocess.Popen(['sleep', '60'])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(60)"
)


def test_output_goes_to_the_log_and_the_exit_code_to_the_caller(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    command = [sys.executable, "-c", "import sys; print('words'); sys.exit(3)"]
    assert run_to_end(command, what="a child", log=log) == 3
    assert log.read_text() == "words\n"


def test_a_child_that_moves_may_take_longer_than_it_may_stand_still(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    assert run_to_end([sys.executable, "-c", TALKS], what="a child", log=log, still_s=2) == 0


def test_a_child_that_stands_still_is_ended_with_all_of_its_group(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    with pytest.raises(AdaptdError, match=r"a child: it hangs: nothing moved for .* Its output: "):
        run_to_end([sys.executable, "-c", LEAVES_A_CHILD], what="a child", log=log, still_s=1)
    child = Path("/proc") / log.read_text().strip()
    until_blocking(lambda: not child.exists(), within_s=10)
