"""The evaluation's loop on a real store, with a host in memory and chosen answers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adaptd.daemon.domain.states import AdapterState, RunState, Verdict
from adaptd.daemon.stats.alpha_spending import alpha_for
from adaptd.daemon.store.database.database import Database, rows
from adaptd.daemon.wire.errors import HostError
from tests.support.evaluation_world import MODEL, EvaluationWorld, now
from tests.support.tiny_model import make_tiny_base
from tests.support.waiting import until


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
async def world(tmp_path: Path, tiny_dir: Path) -> AsyncIterator[EvaluationWorld]:
    database = Database.open(":memory:")
    yield EvaluationWorld(database, tmp_path, tiny_dir)
    database.close()


async def test_a_better_candidate_is_accepted_and_stays_a_candidate(world: EvaluationWorld) -> None:
    live = await world.live(right=0.5)
    run = await world.trained(right=0.9)

    await world.service().tick()

    assert await world.state(run) == (RunState.ACCEPTED, AdapterState.CANDIDATE)
    found = await world.evaluation(run)
    assert (found.verdict, found.live, found.k) == (Verdict.PASSED, live.name, 1)
    assert found.alpha == pytest.approx(alpha_for(1, 0.05))
    assert found.report["findings"][0]["estimate"] == pytest.approx(0.4, abs=0.1)
    assert found.report["suites"]["fresh"]["exact_match"]["live"] == pytest.approx(0.5, abs=0.05)
    assert (await world.runs.get(run.run_id)).reason == found.report["reason"]


async def test_without_a_live_version_the_candidate_meets_the_base(world: EvaluationWorld) -> None:
    run = await world.trained(right=0.9)

    await world.service().tick()

    found = await world.evaluation(run)
    assert (found.verdict, found.live) == (Verdict.PASSED, None)
    assert world.host.asked_of(None) == 120


async def test_a_worse_candidate_is_rejected_and_retired(world: EvaluationWorld) -> None:
    await world.live(right=0.9)
    run = await world.trained(right=0.3)

    await world.service().tick()

    assert await world.state(run) == (RunState.REJECTED, AdapterState.RETIRED)
    reason = (await world.runs.get(run.run_id)).reason or ""
    assert reason.startswith("exact_match on golden: -")


async def test_an_equal_candidate_is_inconclusive_and_retired(world: EvaluationWorld) -> None:
    await world.live(right=0.8)
    run = await world.trained(right=0.8)

    await world.service().tick()

    assert await world.state(run) == (RunState.INCONCLUSIVE, AdapterState.RETIRED)


async def test_too_small_a_holdout_decides_nothing(world: EvaluationWorld) -> None:
    run = await world.trained(right=1.0, snapshot=await world.snapshot(fresh=39))

    await world.service().tick()

    assert (await world.state(run))[0] is RunState.INCONCLUSIVE
    assert "39 items in 39 groups" in ((await world.runs.get(run.run_id)).reason or "")


async def test_a_candidate_that_the_host_does_not_apply_is_never_measured(
    world: EvaluationWorld,
) -> None:
    run = await world.trained()
    world.host.strength[run.adapter or ""] = 0.0

    await world.service().tick()

    assert await world.state(run) == (RunState.REJECTED, AdapterState.QUARANTINED)
    assert "no swap receipt" in ((await world.runs.get(run.run_id)).reason or "")
    assert await world.evaluations.of_run(run.run_id) == []
    assert world.host.asked == []


async def test_lives_scores_are_measured_once_for_all_candidates(world: EvaluationWorld) -> None:
    live = await world.live(right=0.5)
    snapshot = await world.snapshot()
    first = await world.trained(right=0.5, snapshot=snapshot)
    await world.service().tick()
    second = await world.trained(right=0.9, snapshot=await world.snapshot(fresh=70))

    await world.service().tick()

    assert world.host.asked_of(live.name) == 130
    assert [(await world.evaluation(run)).k for run in (first, second)] == [1, 2]


async def test_later_candidates_on_the_same_items_get_less_of_alpha(world: EvaluationWorld) -> None:
    snapshot = await world.snapshot()
    for k in (1, 2, 3):
        run = await world.trained(right=0.0, snapshot=snapshot)
        await world.service().tick()
        golden = (await world.evaluation(run)).report["findings"][1]
        assert (golden["suite"], golden["k"]) == ("golden", k)
        assert golden["alpha"] == pytest.approx(alpha_for(k, 0.05))


async def test_a_host_that_is_away_delays_the_verdict_and_never_makes_one(
    world: EvaluationWorld,
) -> None:
    run = await world.trained()
    service = world.service()
    world.host.away = True
    await service.tick()
    waiting = await world.runs.get(run.run_id)
    assert waiting.state is RunState.EVALUATING
    assert "does not answer" in (waiting.progress or {})["waits_for"]

    world.host.away = False
    await service.tick()

    assert (await world.state(run))[0] is RunState.ACCEPTED


async def test_a_host_restarted_in_the_middle_is_proven_again_before_the_verdict(
    world: EvaluationWorld,
) -> None:
    run = await world.trained()
    service = world.service()
    world.host.before_answer = restart_after(world, 150)

    await service.tick()
    assert (await world.state(run))[0] is RunState.EVALUATING
    await service.tick()

    assert (await world.state(run))[0] is RunState.ACCEPTED
    assert (await world.evaluation(run)).report["receipt"]["instance"] == "instance-2"


def restart_after(world: EvaluationWorld, answers: int) -> "Counter":
    return Counter(answers, world.host.restart)


class Counter:
    """Calls something once, at the n-th answer."""

    def __init__(self, at: int, do: object) -> None:
        self.left = at
        self.do = do

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0 and callable(self.do):
            self.do()
            raise HostError("host", "connection reset", "Try again")


@pytest.mark.parametrize("answers", [1, 50, 119, 120, 200])
async def test_killed_while_measuring_it_goes_on_after_a_restart_without_spending_alpha_twice(
    world: EvaluationWorld, answers: int
) -> None:
    run = await world.trained(right=0.9)

    def die() -> None:
        raise KeyboardInterrupt

    world.host.before_answer = Counter(answers, die)
    with pytest.raises(KeyboardInterrupt):
        await world.service().tick()
    await world.service().tick()

    found = await world.evaluation(run)
    assert (found.verdict, found.k) == (Verdict.PASSED, 1)
    assert len(world.host.asked) <= 240 + 16  # at most one batch twice


async def test_a_live_version_that_changes_meanwhile_is_what_the_candidate_must_beat(
    world: EvaluationWorld,
) -> None:
    old = await world.live(right=0.2)
    better = await world.version(right=0.9)
    await world.host.load(better.name, Path(better.path))
    run = await world.trained(right=0.5)
    service = world.service()
    task = asyncio.create_task(service.tick())
    await until(lambda: world.host.asked_of(run.adapter) > 10, within_s=10, every_s=0.001)
    for name, state in ((old.name, AdapterState.LAST_GOOD), (better.name, AdapterState.LIVE)):
        await world.adapters.move(name, state, actor="test", reason="test")
    await task

    found = await world.evaluation(run)
    assert (found.live, found.verdict) == (better.name, Verdict.FAILED)


async def test_a_cancelled_run_stops_and_its_candidate_is_retired(world: EvaluationWorld) -> None:
    run = await world.trained()
    service = world.service()
    task = asyncio.create_task(service.tick())
    await until(lambda: len(world.host.asked) > 10, within_s=10, every_s=0.001)
    await world.runs.move(
        run.run_id, RunState.CANCELLED, actor="ada", reason="not needed", now=now()
    )
    await task
    asked = len(world.host.asked)
    await service.tick()

    assert await world.state(run) == (RunState.CANCELLED, AdapterState.RETIRED)
    assert len(world.host.asked) == asked < 240
    assert await world.evaluations.of_run(run.run_id) == []


async def test_a_version_that_an_operator_took_past_the_gate_is_left_alone(
    world: EvaluationWorld,
) -> None:
    run = await world.trained(right=0.1)
    await world.adapters.move(run.adapter or "", AdapterState.CANARY, actor="ada", reason="now")

    await world.service().tick()

    assert await world.state(run) == (RunState.CANCELLED, AdapterState.CANARY)
    assert "not judged" in ((await world.runs.get(run.run_id)).reason or "")


async def test_a_snapshot_that_cannot_be_read_fails_the_run(world: EvaluationWorld) -> None:
    snapshot = await world.snapshot()
    (Path(snapshot.path) / "fresh.parquet").write_bytes(b"torn")
    run = await world.trained(snapshot=snapshot)

    await world.service().tick()

    assert await world.state(run) == (RunState.FAILED, AdapterState.RETIRED)
    assert ((await world.runs.get(run.run_id)).reason or "").startswith("data: ")


async def test_items_too_long_for_the_host_are_left_out_for_both_and_told(
    world: EvaluationWorld,
) -> None:
    world.host.max_model_len = 13  # three tokens of prompt, three of reference, eight to spare
    run = await world.trained()

    await world.service().tick()

    found = await world.evaluation(run)
    assert found.report["left_out"] == {"fresh": 60, "golden": 60}
    assert found.verdict is Verdict.INCONCLUSIVE


async def test_progress_counts_the_items_of_both_versions(world: EvaluationWorld) -> None:
    run = await world.trained()

    await world.service().tick()

    progress = (await world.runs.get(run.run_id)).progress or {}
    assert (progress["step"], progress["total"], progress["eta_s"]) == (240, 240, 0.0)


async def test_the_loop_works_until_cancelled(world: EvaluationWorld) -> None:
    task = asyncio.create_task(world.service().run())
    run = await world.trained()

    async def is_over() -> bool:
        return (await world.state(run))[0].is_final

    await until(is_over, within_s=20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_every_verdict_is_explained_in_the_history(world: EvaluationWorld) -> None:
    run = await world.trained(right=0.0)

    await world.service().tick()

    def history(subject: str) -> list[tuple[str, str]]:
        query = "SELECT to_state, actor FROM transitions WHERE subject = $subject"
        found = world.database.write_now(lambda c: rows(c, query, subject=subject))
        return [(row["to_state"], row["actor"]) for row in found]

    assert history(run.run_id)[-2:] == [
        ("evaluating", "evaluation"),
        ("inconclusive", "evaluation"),
    ]
    assert history(run.adapter or "")[-1] == ("retired", "evaluation")
    assert run.model == MODEL
