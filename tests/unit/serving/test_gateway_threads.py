"""Capture and shipping outlive errors of disk, receiver and callbacks, and show them."""

import errno
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adaptd.daemon.wire.routes import GatewayState, ThreadState
from adaptd.daemon.wiring.live_status import capture_part
from adaptd.serving.capture.delivery import DeliveryError, EncodedEvent
from adaptd.serving.capture.recorder import InteractionRecorder
from adaptd.serving.capture.shipper import SpoolShipper
from adaptd.serving.capture.spool import Spool
from adaptd.serving.capture.supervised_thread import SupervisedThread
from adaptd.serving.gateway.log import make_log
from tests.support.broker import ROOT
from tests.support.failing_disk import ERRORS, METHODS, FailingDisk, fail_first
from tests.support.waiting import LIMIT_S, until_blocking
from tests.unit.serving.test_recorder import a_capture, an_exchange

LOG = make_log("g1")
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Receiver:
    """A delivery in memory, that raises what it is told to."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        self.error: Exception | None = None
        self.is_closed = False

    def deliver(self, events: Sequence[EncodedEvent]) -> list[EncodedEvent]:
        if self.error is not None:
            raise self.error
        self.taken.update(msgspec.json.decode(event.value)["id"] for event in events)
        return []

    def close(self) -> None:
        self.is_closed = True


class Gateway:
    """Capture and shipping, put together as the gateway's router does."""

    def __init__(self, home: Path, disk: FailingDisk | None = None, **changes: Any) -> None:
        self.receiver = Receiver()
        self.shipping: SpoolShipper | None = None
        self.capture: InteractionRecorder = a_capture(
            home, [], disk=disk, on_spool=self.ship_from, segment_bytes=400, **changes
        )

    def ship_from(self, spool: Spool) -> None:
        self.shipping = SpoolShipper(spool, self.receiver, log=LOG)
        self.capture.on_append = self.shipping.wake
        self.shipping.start()

    def states(self) -> list[ThreadState]:
        return [part.state() for part in (self.capture, self.shipping) if part is not None]

    def is_well(self) -> bool:
        return len(self.states()) == 2 and all(state.problem is None for state in self.states())

    def stop(self) -> bool:
        ended = self.capture.close(10)
        return (self.shipping is None or self.shipping.close(10)) and ended


@pytest.mark.parametrize("method", METHODS)
def test_an_error_of_the_disk_ends_nothing_and_loses_nothing(tmp_path: Path, method: str) -> None:
    error = ERRORS[METHODS.index(method) % len(ERRORS)]
    gateway = Gateway(tmp_path, fail_first(method, error, times=2))
    names = [f"e{number}" for number in range(8)]
    gateway.capture.start()
    for name in names:
        gateway.capture.record(an_exchange(name))

    until_blocking(lambda: set(gateway.receiver.taken) == set(names), within_s=10)
    until_blocking(gateway.is_well, within_s=10)

    assert gateway.stop()
    assert gateway.capture.rows_lost == 0
    assert gateway.receiver.is_closed


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (DeliveryError("kafka", "it is away", "Wait"), "it is away"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "Too many open files"),
        (ValueError("of the client library, with a prompt"), "ValueError"),
        (AssertionError(), "AssertionError"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_shipping_says_what_it_waits_for_and_since_when_and_goes_on(
    tmp_path: Path, error: Exception, told: str
) -> None:
    gateway = Gateway(tmp_path)
    gateway.receiver.error = error
    gateway.capture.start()
    gateway.capture.record(an_exchange("a"))

    until_blocking(lambda: not gateway.is_well() and len(gateway.states()) == 2, within_s=10)
    until_blocking(lambda: gateway.states()[1].problem, within_s=10)
    capture, shipping = gateway.states()
    assert capture.problem is None
    assert shipping.problem is not None
    assert told in shipping.problem
    assert "prompt" not in shipping.problem
    assert shipping.since is not None
    assert gateway.shipping is not None
    assert gateway.shipping.failures >= 1

    gateway.receiver.error = None
    until_blocking(lambda: gateway.receiver.taken["a"], within_s=10)
    until_blocking(gateway.is_well, within_s=10)
    assert gateway.stop()


@pytest.mark.parametrize("error", [RuntimeError("no thread"), OSError("no file"), KeyError("x")])
def test_an_error_of_a_callback_costs_no_row(tmp_path: Path, error: Exception) -> None:
    gateway = Gateway(tmp_path)
    left = [error, error]

    def fail_twice(spool: Spool) -> None:
        if left:
            raise left.pop()
        gateway.ship_from(spool)

    gateway.capture = a_capture(tmp_path, [], on_spool=fail_twice)
    gateway.capture.start()
    for name in ("a", "b"):
        gateway.capture.record(an_exchange(name))

    until_blocking(lambda: set(gateway.receiver.taken) == {"a", "b"}, within_s=10)
    assert gateway.stop()
    assert gateway.capture.rows_lost == 0


def test_what_a_broken_disk_does_not_take_at_the_end_is_counted(tmp_path: Path) -> None:
    disk = FailingDisk(lambda name, _: errno.EIO if name == "write" else None)
    capture = a_capture(tmp_path, [], disk=disk)
    capture.start()
    capture.record(an_exchange("a"))
    until_blocking(lambda: capture.state().problem, within_s=10)

    assert capture.close(10)

    assert (capture.rows_lost, capture.waiting) == (1, 0)
    capture.record(an_exchange("b"))
    assert capture.rows_lost == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ended_says_so() -> None:
    def end() -> bool:
        raise SystemExit  # not an Exception: ends the thread

    ended = threading.Event()
    thread = SupervisedThread("x", end, wait=ended.wait, wake=ended.set, at_end=ended.set, log=LOG)
    assert thread.state().problem is None
    thread.start()
    assert ended.wait(10)
    until_blocking(lambda: not thread.is_alive, within_s=10)
    assert "has ended" in (thread.state().problem or "")


def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    log = "from adaptd.serving.gateway.log import make_log; make_log('g').error('x')"
    script = f"import os, sys; os.close(2); {log}"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0


STARVED = """
import os, resource, sys, threading
from pathlib import Path
from adaptd.serving.gateway.log import make_log
from adaptd.serving.capture.shipper import SpoolShipper
from adaptd.serving.capture.spool import Spool

class Receiver:
    taken = []
    def deliver(self, events):
        self.taken += events
        return []
    def close(self): pass

spool = Spool(Path(sys.argv[1]), segment_bytes=1 << 20)
spool.append([b'{"id": "a"}'])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
shipping = SpoolShipper(spool, Receiver(), log=make_log("g"))
shipping.start()
while shipping.failures == 0:
    threading.Event().wait(0.01)
assert "Too many open files" in shipping.state().problem
for descriptor in held:
    os.close(descriptor)
while not Receiver.taken or shipping.state().problem:
    threading.Event().wait(0.01)
assert shipping.close(5)
assert spool.depth == 0
"""


def test_shipping_outlives_a_process_without_free_descriptors(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARVED, tmp_path / "spool"],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("thread", "problem"),
    [
        (ThreadState(name="shipping"), None),
        (ThreadState(name="shipping", problem="away", since=NOW - timedelta(seconds=3)), None),
        (
            ThreadState(name="shipping", problem="away", since=NOW - timedelta(seconds=10)),
            "g1: shipping: away, since 2026-11-22T11:59:50Z",
        ),
        (
            ThreadState(name="capture", problem="the thread has ended"),
            "g1: capture: the thread has ended, since an unknown time",
        ),
    ],
)
def test_the_daemon_is_not_ready_while_a_thread_of_a_gateway_fails(
    thread: ThreadState, problem: str | None
) -> None:
    states = [GatewayState(gateway="g1", epoch=1, threads=(ThreadState(name="other"), thread))]
    part = capture_part(states, NOW)
    assert (part.part, part.problem) == ("capture", problem)
