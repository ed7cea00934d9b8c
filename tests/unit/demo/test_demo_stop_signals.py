"""The first signal stops the demo wherever its main thread is. Real signals to this process."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import pytest

from adaptd.daemon.demo.stopping import Stopped, StopSignals
from tests.support.broker import ROOT


def send_and_wait(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(5)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_interrupts_what_blocks(number: int, code: int) -> None:
    before = signal.getsignal(number)
    with StopSignals(), pytest.raises(Stopped) as stopped:
        send_and_wait(number)
    assert stopped.value.exit_code == code
    assert signal.getsignal(number) is before


def test_a_signal_cancels_what_runs_on_a_loop() -> None:
    async def work(stop: StopSignals) -> None:
        task = asyncio.current_task()
        assert task is not None
        with stop.cancelling(task):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(5)

    with StopSignals() as stop:
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(work(stop))
        with pytest.raises(Stopped):
            stop.check()


def test_a_signal_does_not_interrupt_the_end_but_is_known() -> None:
    with StopSignals() as stop:
        stop.check()
        with stop.noting():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        assert stop.number == signal.SIGTERM


_ENDS_SLOWLY = """
import time
from adaptd.daemon.demo.stopping import StopSignals
with StopSignals() as stop, stop.noting():
    stop.on_second = lambda: print("killed", flush=True)
    print("ending", flush=True)
    time.sleep(60)
"""


def test_a_second_signal_kills_and_ends_at_once() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _ENDS_SLOWLY], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child.stdout as said:
        assert said.readline() == "ending\n"
        child.send_signal(signal.SIGINT)
        child.send_signal(signal.SIGTERM)
        assert said.readline() == "killed\n"
    assert child.wait(10) == 143
