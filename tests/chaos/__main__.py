"""`make chaos`: breaks ingestion in every way we know, and counts what that did to the events.

CHAOS_SEED chooses what chance decides, CHAOS_ONLY some faults by parts of their names (a,b).
Exit 1 where an event was lost, stored twice or out of order, or a gap was not reported exactly.
"""

import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from hypothesis import Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from adaptd.daemon.demo.broker import KafkaNode
from tests.chaos import (
    faults_broker,
    faults_daemon,
    faults_data,
    faults_process,
    faults_retention,
    faults_store,
)
from tests.chaos.arena import Outcome, World
from tests.chaos.report import table, write_json
from tests.chaos.sink_machine import SinkMachine
from tests.support.broker import JARS, ROOT, Broker

RESULTS = ROOT / "bench" / "results" / "chaos.json"
LIMIT_S = 870  # with the start of the broker and the table: 15 minutes
_Fault = Callable[[], Outcome]


class OutOfTimeError(BaseException):
    """The whole run took too long. Nothing may catch it."""


def faults(world: World) -> Iterator[tuple[str, _Fault]]:
    """Every fault in turn, by name. The broker is killed last: nothing else shall feel it."""
    process, broker, data = faults_process, faults_broker, faults_data
    compacted = broker.Compacted(world)
    yield "state_machine", lambda: state_machine(world.seed)
    yield "sigkill_at_random", lambda: process.sigkill_at_random(world, kills=15)
    yield "sigkill_at_failpoints", lambda: process.sigkill_at_failpoints(world)
    yield "errors_at_failpoints", lambda: process.errors_at_failpoints(world)
    yield "sigkill_of_the_daemon", lambda: faults_daemon.sigkill_of_the_daemon(world, kills=50)
    yield "sigstop", lambda: process.sigstop(world, times=2)
    yield "second_on_the_store", lambda: process.second_on_the_store(world, times=3)
    yield "second_in_the_group", lambda: process.second_in_the_group(world)
    yield "foreign_members", lambda: process.foreign_members(world, times=4)
    yield "copies", lambda: data.copies(world)
    yield "poison", lambda: data.poison(world)
    yield "clocks", lambda: data.clocks(world)
    yield "older_copy", lambda: faults_store.older_copy(world)
    yield "older_copy_expired", lambda: faults_store.older_copy(world, expired=True)
    yield "topic_made_anew", lambda: broker.topic_made_anew(world)
    yield "topic_made_anew_read", lambda: broker.topic_made_anew(world, while_read=True)
    yield "passed_by_retention", lambda: faults_retention.passed_by_time(world)
    yield (
        "passed_by_retention_stopped",
        lambda: broker.passed_by_retention(world, while_stopped=True),
    )
    yield "compacted", compacted.run
    yield "aborted", lambda: asyncio.run(broker.aborted_transactions(world, times=60))
    yield "disk_full", lambda: faults_store.disk_full(world, times=4)
    yield "sigkill_of_the_broker", lambda: broker.sigkill_of_the_broker(world, times=3, starts=3)
    yield "broker_away", lambda: faults_daemon.broker_away(world)


def state_machine(number: int) -> Outcome:
    """The sink alone, in any order of deliveries, failures and restarts."""
    machine = seed(number)(SinkMachine)
    asked = settings(
        max_examples=120,
        stateful_step_count=50,
        phases=[Phase.generate],  # a failure is shown as found: making it small takes minutes
        deadline=None,
        database=None,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(settings.default.suppress_health_check),
    )
    run_state_machine_as_test(machine, settings=asked)
    return Outcome(
        fault="any order of deliveries and failures at the sink",
        injected=SinkMachine.failed,
        sent=SinkMachine.delivered,
        lost=0,
        duplicated=0,
        reordered=0,
        recover_s=None,
        note="120 runs of a Hypothesis state machine; it ends with the first difference",
    )


def main() -> int:
    number = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    only = os.environ.get("CHAOS_ONLY", "")
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(LIMIT_S)
    home = Path(tempfile.mkdtemp(prefix="adaptd-chaos-"))
    _say(f"CHAOS_SEED={number}; in {home}")
    node = KafkaNode(home / "kafka", jars=JARS, properties=faults_retention.PROPERTIES)
    broker = Broker(home / "kafka", node)
    outcomes: list[Outcome] = []
    try:
        world = World(broker, home, number)
        outcomes.extend(_run(name, fault) for name, fault in faults(world) if _wanted(name, only))
    except OutOfTimeError:
        outcomes.append(_failed("the rest", f"not done within {LIMIT_S} s"))
    finally:
        signal.alarm(0)
        broker.stop()
    sys.stdout.write("\n".join([*table(outcomes), ""]))
    if not only:
        write_json(outcomes, RESULTS)
    if not all(outcome.is_sound for outcome in outcomes):
        _say(f"not sound; what the processes said is in {home}")
        return 1
    shutil.rmtree(home)
    return 0


def _run(name: str, fault: _Fault) -> Outcome:
    began_s = time.monotonic()
    try:
        outcome = fault()
    except Exception as error:  # noqa: BLE001 - the other faults shall have their turn
        steps = "\n".join(getattr(error, "__notes__", []))
        outcome = _failed(name, f"{type(error).__name__}: {error} {steps}")
    _say(f"{name}: {'sound' if outcome.is_sound else 'WRONG'}, {time.monotonic() - began_s:.0f} s")
    return outcome


def _wanted(name: str, only: str) -> bool:
    return any(part in name for part in only.split(","))


def _failed(fault: str, problem: str) -> Outcome:
    return Outcome(
        fault=fault,
        injected=0,
        sent=0,
        lost=0,
        duplicated=0,
        reordered=0,
        recover_s=None,
        problems=[problem],
    )


def _out_of_time(_number: int, _frame: FrameType | None) -> None:
    raise OutOfTimeError


def _say(words: str) -> None:
    sys.stderr.write(words + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
