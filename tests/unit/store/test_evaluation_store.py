"""Scores and verdicts: kept once, and written with the states they lead to or not at all."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adaptd.daemon.domain.scores import Score
from adaptd.daemon.domain.states import AdapterState, RunState, Verdict
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.lifecycle.adapters import AdapterStore, Origin
from adaptd.daemon.store.lifecycle.evaluations import Evaluation, EvaluationStore, Outcome
from adaptd.daemon.store.lifecycle.runs import RunStore
from adaptd.daemon.wire.errors import RefusedError

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
TO_EVALUATING = (RunState.BUILDING, RunState.TRAINING, RunState.TRAINED, RunState.EVALUATING)
WHY = {"actor": "test", "reason": "because", "now": NOW}


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    opened = Database.open(":memory:")
    yield opened
    opened.close()


async def evaluating(database: Database) -> tuple[str, str]:
    """A run that is being evaluated, and its candidate."""
    runs = RunStore(database)
    run = await runs.create(
        "support", policy_version=1, trigger={}, start_from=None, actor="test", now=NOW
    )
    origin = Origin(content_hash="ab" * 32, base_digest="cd" * 32, run_id=run.run_id)
    adapter = await AdapterStore(database).add(
        "support", origin, folder=Path("adapters"), actor="test", now=NOW
    )
    for state in TO_EVALUATING:
        await runs.move(run.run_id, state, **WHY)
    return run.run_id, adapter.name


def rejected(run_id: str, candidate: str) -> tuple[Outcome, Evaluation]:
    outcome = Outcome(
        run_id=run_id,
        run_to=RunState.REJECTED,
        adapter=candidate,
        adapter_to=AdapterState.RETIRED,
        reason="worse",
    )
    evaluation = Evaluation(
        evaluation_id="eval-1",
        run_id=run_id,
        model="support",
        candidate=candidate,
        live=None,
        holdout_version=1,
        k=2,
        alpha=0.0076,
        verdict=Verdict.FAILED,
        report={"reason": "worse", "findings": []},
        policy_version=3,
        created_at=NOW,
    )
    return outcome, evaluation


async def test_the_first_score_of_an_item_stays(database: Database) -> None:
    store = EvaluationStore(database)
    first = {"a": Score(exact=True, nll=1.5, reference_tokens=3)}
    await store.add_scores("v1", "fresh", first)

    await store.add_scores("v1", "fresh", {"a": Score(False, 9.0, 3), "b": Score(False, 2.0, 4)})

    assert await store.scores("v1", "fresh", ["a", "b", "c"]) == first | {"b": Score(False, 2.0, 4)}
    assert await store.scores(None, "fresh", ["a"]) == {}


async def test_no_items_have_no_scores(database: Database) -> None:
    store = EvaluationStore(database)
    await store.add_scores("v1", "fresh", {})

    assert await store.scores("v1", "fresh", []) == {}


async def test_a_verdict_is_written_with_the_states_it_leads_to(database: Database) -> None:
    store = EvaluationStore(database)
    run_id, candidate = await evaluating(database)
    outcome, evaluation = rejected(run_id, candidate)

    run = await store.settle(outcome, evaluation, actor="evaluation", now=NOW)

    assert (run.state, run.reason) == (RunState.REJECTED, "worse")
    assert (await AdapterStore(database).get(candidate)).state is AdapterState.RETIRED
    assert await store.get("eval-1") == evaluation
    assert await store.list("support") == await store.of_run(run_id) == [evaluation]
    assert await store.list("sales") == []


async def test_a_run_cancelled_meanwhile_gets_no_verdict(database: Database) -> None:
    store = EvaluationStore(database)
    run_id, candidate = await evaluating(database)
    await RunStore(database).move(run_id, RunState.CANCELLED, **WHY)

    with pytest.raises(RefusedError, match="cancelled"):
        await store.settle(*rejected(run_id, candidate), actor="evaluation", now=NOW)

    assert await store.list() == []
    assert (await AdapterStore(database).get(candidate)).state is AdapterState.CANDIDATE
    assert await store.abandoned() == [candidate]


async def test_a_version_past_the_gate_keeps_its_state(database: Database) -> None:
    store = EvaluationStore(database)
    run_id, candidate = await evaluating(database)
    await AdapterStore(database).move(candidate, AdapterState.CANARY, **WHY)

    await store.settle(*rejected(run_id, candidate), actor="evaluation", now=NOW)

    assert (await AdapterStore(database).get(candidate)).state is AdapterState.CANARY
