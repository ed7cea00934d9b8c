"""Groups of processes and their work, over real ones."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from adaptd.daemon.domain.processes import Work, group_members, stat_fields, work_of
from tests.support.waiting import until_blocking

BUSY = "import subprocess,sys\nsubprocess.Popen(['sleep','60'])\nwhile True: pass"


@pytest.fixture
def busy() -> Iterator[int]:
    child = subprocess.Popen([sys.executable, "-c", BUSY], start_new_session=True)
    yield child.pid
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def test_a_group_is_found_with_its_children_and_its_work(busy: int) -> None:
    members = until_blocking(
        lambda: found if len(found := group_members(busy)) == 2 else None, within_s=20
    )
    assert busy in members
    first = work_of(members)
    assert first is not None
    assert first.moved_bytes > 0
    until_blocking(lambda: (work_of([busy]) or first).cpu_s > first.cpu_s, within_s=20)


def test_older_processes_are_of_another_group(busy: int) -> None:
    fields = stat_fields(busy)
    assert fields is not None
    assert group_members(busy, since_ticks=int(fields[19]) + 1000) == []


def test_who_has_ended_has_no_work() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert stat_fields(child.pid) is None
    assert work_of([child.pid]) is None


def test_units_do_not_change_within_the_time_that_an_idle_process_is_given() -> None:
    idle = [Work(cpu_s=0.01 * t, moved_bytes=1000 * t).units(300) for t in range(300)]
    working = [Work(cpu_s=0.2 * t, moved_bytes=0).units(300) for t in range(300)]
    assert len(set(idle)) == 1
    assert len(set(working)) == 4
