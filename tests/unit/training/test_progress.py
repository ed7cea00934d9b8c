"""The clocks of a child's figures: pauses count in the time left only."""

import os
import time
from pathlib import Path

import pytest

from adaptd.daemon.training.job import PAUSED_FD
from adaptd.daemon.training.worker.process import paused_s, running_s
from adaptd.daemon.training.worker.progress import step_progress
from tests.support.training_world import a_job


def test_the_clock_of_a_child_stands_still_while_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    descriptor = os.memfd_create("paused")
    monkeypatch.setenv(PAUSED_FD, str(descriptor))
    ran_before, wall_before = running_s(), time.monotonic()
    os.pwrite(descriptor, b"1000000.000", 0)
    ran_s, wall_s = running_s() - ran_before, time.monotonic() - wall_before

    assert paused_s() == 1e6
    assert ran_s < -1e6 + 600, "no machine takes so long between two looks at the clock"
    assert ran_s <= wall_s - 1e6 + 0.001
    os.close(descriptor)


def test_the_speed_is_of_the_time_it_ran_and_the_time_left_has_pauses(tmp_path: Path) -> None:
    line = step_progress(
        a_job(tmp_path, steps=12),
        first=4,
        step=6,
        loss=0.12344,
        tokens=[100] * 12,
        ran_s=10.0,
        wall_s=40.0,
    )

    assert line.tokens_per_s == 20.0
    assert line.eta_s == 120.0
    assert (line.phase, line.step, line.total, line.resumed_from) == ("training", 6, 12, 4)
    assert line.loss == 0.1234
