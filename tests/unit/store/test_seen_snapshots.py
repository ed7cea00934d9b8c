"""Which snapshot's examples count as seen: what came to nothing is new again, but not for ever."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from adaptd.daemon.domain.states import RunState
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.store.lifecycle.snapshots import Snapshot, SnapshotStore
from adaptd.daemon.store.lifecycle.triggers import TriggerStore
from tests.support.event_samples import NOON, a_rating, an_interaction
from tests.support.ingesting import Ingesting

TO_TRAINED = (RunState.BUILDING, RunState.TRAINING, RunState.TRAINED)
FAILED = (RunState.BUILDING, RunState.TRAINING, RunState.FAILED)
CANCELLED = (RunState.BUILDING, RunState.CANCELLED)
NOT_JUDGED = (*TO_TRAINED, RunState.EVALUATING, RunState.FAILED)
REJECTED = (*TO_TRAINED, RunState.EVALUATING, RunState.REJECTED)


class Past:
    """Runs of one alias, an hour apart, each with a snapshot of its own example."""

    def __init__(self, database: Database) -> None:
        self.runs = RunStore(database)
        self.snapshots = SnapshotStore(database)
        self.triggers = TriggerStore(database)
        self.events = Ingesting(database, NOON)

    async def had(self, *runs: tuple[RunState, ...]) -> None:
        for number, states in enumerate(runs, 1):
            await self._had(number, states, at=NOON + timedelta(hours=number))

    async def _had(self, number: int, states: tuple[RunState, ...], at: datetime) -> None:
        run = await self.runs.create(
            "support", policy_version=1, trigger={}, start_from=None, actor="test", now=at
        )
        judged = a_rating(f"i{number}", id=f"f{number}")
        await self.events.add(an_interaction(id=f"i{number}"), judged)
        snapshot = a_snapshot(f"snapshot-{number}", at)
        lineage = {"side": "train", "interaction": f"i{number}", "feedback": f"f{number}"}
        await self.snapshots.add(snapshot, [lineage | {"user": "ada", "group": "g"}])
        await self.runs.set_snapshot(run.run_id, snapshot.snapshot_id)
        for state in states:
            await self.runs.move(run.run_id, state, actor="test", reason="so", now=at)

    async def seen(self) -> int:
        """The number of the run whose examples count as seen; 0 where nothing does."""
        mark = await self.triggers.newest_snapshot("support")
        number = 0 if mark is None else round((mark.as_of - NOON) / timedelta(hours=1))
        feedback = await self.snapshots.seen_feedback("support")
        assert feedback == ({f"f{number}"} if number else set())
        return number


def a_snapshot(name: str, at: datetime) -> Snapshot:
    return Snapshot(
        snapshot_id=name,
        model="support",
        policy_version=1,
        as_of=at,
        content_hash="c" * 64,
        path=name,
        train_rows=1,
        holdout_rows=0,
        golden_rows=0,
        holdout_version=1,
        created_at=at,
        manifest={},
    )


@pytest.fixture
async def past() -> AsyncIterator[Past]:
    database = Database.open(":memory:")
    yield Past(database)
    database.close()


@pytest.mark.parametrize("made", [REJECTED, NOT_JUDGED])
async def test_what_a_version_came_of_is_seen(past: Past, made: tuple[RunState, ...]) -> None:
    await past.had(FAILED, made)
    assert await past.seen() == 2


@pytest.mark.parametrize("lost", [FAILED, CANCELLED])
async def test_what_a_run_lost_is_new_again(past: Past, lost: tuple[RunState, ...]) -> None:
    await past.had(REJECTED, lost, lost)
    assert await past.seen() == 1


async def test_before_any_version_nothing_is_seen(past: Past) -> None:
    await past.had(FAILED)
    assert await past.seen() == 0


async def test_what_no_run_can_train_on_is_not_tried_for_ever(past: Past) -> None:
    await past.had(FAILED, CANCELLED, FAILED, FAILED)
    assert await past.seen() == 4


async def test_a_version_begins_the_count_anew(past: Past) -> None:
    await past.had(FAILED, FAILED, REJECTED, FAILED, FAILED)
    assert await past.seen() == 3
