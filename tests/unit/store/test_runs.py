"""Runs: one active per alias, legal moves only, a transition for each."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from adaptd.daemon.domain.states import RunState
from adaptd.daemon.store.database.database import Database, rows
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.lifecycle.runs import Run, RunStore
from adaptd.daemon.wire.errors import RefusedError

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    opened = Database.open(":memory:")
    yield opened
    opened.close()


@pytest.fixture
def runs(database: Database) -> RunStore:
    return RunStore(database)


async def a_run(runs: RunStore, model: str = "support", now: datetime = NOW) -> Run:
    return await runs.create(
        model,
        policy_version=1,
        trigger={"new_examples": 200},
        start_from=None,
        actor="triggers",
        now=now,
    )


async def move(runs: RunStore, run: Run, *states: RunState, now: datetime = LATER) -> Run:
    for state in states:
        run = await runs.move(run.run_id, state, actor="test", reason="because", now=now)
    return run


async def test_a_new_run_is_queued_with_its_trigger(runs: RunStore) -> None:
    run = await a_run(runs)

    assert run.state is RunState.QUEUED
    assert run.trigger == {"new_examples": 200}
    assert run.created_at == NOW
    assert await runs.get(run.run_id) == run == await runs.active("support")


async def test_an_alias_has_one_active_run_and_others_are_free(runs: RunStore) -> None:
    first = await a_run(runs)
    with pytest.raises(RefusedError, match=f"run {first.run_id} is still queued"):
        await a_run(runs)
    await a_run(runs, "sales")

    await move(runs, first, RunState.CANCELLED)

    assert (await a_run(runs)).run_id != first.run_id


async def test_the_oldest_run_is_claimed_and_only_once(runs: RunStore) -> None:
    young = await a_run(runs, "sales", LATER)
    old = await a_run(runs)

    claims = [
        await runs.claim(RunState.QUEUED, RunState.BUILDING, actor="dataset", now=LATER)
        for _ in range(3)
    ]

    assert [claim and claim.run_id for claim in claims] == [old.run_id, young.run_id, None]
    assert claims[0] is not None
    assert claims[0].started_at == LATER


async def test_a_run_is_claimed_for_training_only_with_a_snapshot(runs: RunStore) -> None:
    run = await move(runs, await a_run(runs), RunState.BUILDING)

    async def claim() -> Run | None:
        return await runs.claim(RunState.BUILDING, RunState.TRAINING, actor="training", now=LATER)

    assert await claim() is None
    await runs.set_snapshot(run.run_id, "snapshot-1")
    claimed = await claim()
    assert claimed is not None
    assert (claimed.state, claimed.snapshot_id) == (RunState.TRAINING, "snapshot-1")
    assert await runs.in_state(RunState.TRAINING) == [claimed]


async def test_an_illegal_move_is_refused_and_leaves_no_trace(
    runs: RunStore, database: Database
) -> None:
    run = await a_run(runs)
    with pytest.raises(RefusedError):
        await move(runs, run, RunState.ACCEPTED)

    assert await runs.get(run.run_id) == run
    assert len(await history(database, run)) == 1


async def test_each_move_leaves_its_reason_and_a_repeat_none(
    runs: RunStore, database: Database
) -> None:
    run = await a_run(runs)
    evidence = {"loss": 1.5}
    for _ in range(2):
        await runs.move(
            run.run_id,
            RunState.FAILED,
            actor="training",
            reason="nan: step 3",
            evidence=evidence,
            now=LATER,
        )

    found = await history(database, run)
    assert [(row["from_state"], row["to_state"]) for row in found] == [
        (None, "queued"),
        ("queued", "failed"),
    ]
    assert found[1]["reason"] == "nan: step 3"
    failed = await runs.get(run.run_id)
    assert (failed.reason, failed.finished_at) == ("nan: step 3", LATER)
    assert await runs.last_finished("support") == failed
    assert await runs.active("support") is None


async def test_attempts_progress_and_process_are_kept(runs: RunStore) -> None:
    run = await a_run(runs)
    await runs.begin_attempt(run.run_id, directory="/runs/1", micro_batch=None)
    await runs.begin_attempt(run.run_id, directory="/runs/1", micro_batch=4)
    await runs.set_process(run.run_id, 4711, "/runs/1")
    await runs.set_progress(run.run_id, {"step": 3, "loss": 0.5})

    kept = await runs.get(run.run_id)
    assert (kept.attempts, kept.micro_batch, kept.pid) == (2, 4, 4711)
    assert (kept.directory, kept.progress) == ("/runs/1", {"step": 3, "loss": 0.5})


async def test_runs_are_listed_newest_first_by_alias(runs: RunStore) -> None:
    old = await move(runs, await a_run(runs), RunState.FAILED)
    other = await a_run(runs, "sales", LATER)
    new = await a_run(runs, now=LATER + timedelta(seconds=1))

    assert [run.run_id for run in await runs.list()] == [new.run_id, other.run_id, old.run_id]
    assert [run.run_id for run in await runs.list("support", limit=1)] == [new.run_id]


async def test_an_unknown_run_is_refused(runs: RunStore) -> None:
    with pytest.raises(RefusedError, match="there is no such run"):
        await runs.get("run-0")


async def history(database: Database, run: Run) -> list[dict[str, object]]:
    statement = statements("transitions")["transitions_of"]
    return await database.read(lambda c: rows(c, statement, kind="run", subject=run.run_id))
