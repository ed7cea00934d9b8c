"""A small fixed part of `make chaos`: nothing lost, nothing twice, nothing out of order."""

import asyncio
from pathlib import Path

import pytest

from tests.chaos import faults_broker, faults_data, faults_process, faults_store
from tests.chaos.arena import Outcome, World
from tests.chaos.failpoints import AFTER_COMMIT, BEFORE_ANSWER, BEFORE_COMMIT, BEFORE_TELLING
from tests.support.broker import Broker

_SEED = 4


@pytest.fixture
def world(broker: Broker, tmp_path: Path) -> World:
    return World(broker, tmp_path, _SEED)


def assert_sound(outcome: Outcome) -> None:
    assert outcome.problems == []
    assert (outcome.lost, outcome.duplicated, outcome.reordered) == (0, 0, 0)
    assert outcome.sent > 0


def test_sigkill_under_load(world: World) -> None:
    assert_sound(faults_process.sigkill_at_random(world, kills=3))


def test_sigkill_around_the_commit(world: World) -> None:
    chosen = [BEFORE_COMMIT, AFTER_COMMIT, BEFORE_TELLING]
    assert_sound(faults_process.sigkill_at_failpoints(world, only=chosen))


def test_errors_around_the_commit(world: World) -> None:
    chosen = [BEFORE_COMMIT, AFTER_COMMIT, BEFORE_ANSWER]
    assert_sound(faults_process.errors_at_failpoints(world, only=chosen))


def test_poison_of_every_kind(world: World) -> None:
    assert_sound(faults_data.poison(world, rounds=1))


def test_a_restored_copy_of_the_store_reads_on_from_its_own_offsets(world: World) -> None:
    assert_sound(faults_store.older_copy(world))


def test_aborted_transactions(world: World) -> None:
    assert_sound(asyncio.run(faults_broker.aborted_transactions(world, times=20)))


def test_retention_that_passes_a_stopped_daemon_is_reported_to_the_offset(world: World) -> None:
    assert_sound(faults_broker.passed_by_retention(world))
