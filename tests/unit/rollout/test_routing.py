"""From versions, rollouts and receipts to routes."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from adaptd.daemon.domain.rollouts import Rollout
from adaptd.daemon.domain.states import AdapterState, RolloutState
from adaptd.daemon.rollout.build_table import Alias, build_routes, named_paths
from adaptd.daemon.rollout.plan import Plan, StepPlan
from adaptd.daemon.rollout.state import RolloutFacts
from adaptd.daemon.store.lifecycle.adapters import AdapterRow
from adaptd.daemon.wire.routes import Arm, Route, choose

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
V1, V2, V3 = "support@v1-11111111", "support@v2-22222222", "support@v3-33333333"
PLAN = Plan(steps=(StepPlan(weight=0.05), StepPlan(weight=0.25)))
STATES = AdapterState
replace = msgspec.structs.replace
ON_STEP = Rollout(
    rollout_id="rollout-1",
    model="support",
    candidate=V3,
    previous=V2,
    state=RolloutState.STEP,
    step=2,
    approved_by="policy",
    policy_version=1,
    created_at=NOW,
)
PROMOTED = replace(ON_STEP, candidate=V2, previous=V1, state=RolloutState.LIVE, live_at=NOW)


def version(name: str, state: AdapterState, model: str = "support") -> AdapterRow:
    return AdapterRow(
        name=name,
        model=model,
        number=int(name[name.index("@v") + 2]),
        content_hash="",
        path=f"/adapters/{name}",
        base_digest="base",
        state=state,
        created_at=NOW,
    )


def route(
    versions: dict[str, AdapterState],
    *rollouts: Rollout,
    verified: tuple[str, ...] = (V1, V2, V3),
    now: datetime = NOW,
) -> Route:
    world = RolloutFacts.of([version(*item) for item in versions.items()], rollouts)
    aliases = [Alias(name="support", base_digest="b", template_digest="t")]
    plans = {rollout.rollout_id: PLAN for rollout in rollouts}
    return build_routes(world, aliases, plans, verified=verified, now=now)["support"]


def test_an_alias_without_versions_is_the_base() -> None:
    assert route({}) == Route(alias="support", base_digest="b", template_digest="t")


def test_live_and_last_good_follow_the_versions_states() -> None:
    found = route({V1: STATES.LAST_GOOD, V2: STATES.LIVE, V3: STATES.CANDIDATE})
    assert (found.live, found.last_good, found.canary_on) == (V2, V1, False)


def test_a_rollout_on_its_steps_gives_the_canary_the_steps_weight() -> None:
    found = route({V2: STATES.LIVE, V3: STATES.CANARY}, ON_STEP)
    assert (found.canary, found.canary_on, found.weight) == (V3, True, 0.25)
    assert found.salt == found.rollout == "rollout-1"


@pytest.mark.parametrize(
    ("rollout", "verified"),
    [
        (replace(ON_STEP, withdrawn=True), (V2, V3)),
        (ON_STEP, (V2,)),  # no receipt on this process of the host
        (replace(ON_STEP, state=RolloutState.VERIFIED, step=0), (V2, V3)),
    ],
)
def test_a_canary_without_receipt_step_or_watch_gets_nothing(
    rollout: Rollout, verified: tuple[str, ...]
) -> None:
    found = route({V2: STATES.LIVE, V3: STATES.CANARY}, rollout, verified=verified)
    assert (found.live, found.canary_on, found.weight, found.ready) == (V2, False, 0.0, True)


def test_a_live_version_without_receipt_is_not_ready_and_the_base_always_is() -> None:
    assert not route({V2: STATES.LIVE}, verified=()).ready
    assert route({}, verified=()).ready


def test_after_promotion_a_share_stays_on_last_good_as_long_as_it_is_watched() -> None:
    versions = {V1: STATES.LAST_GOOD, V2: STATES.LIVE}
    assert route(versions, PROMOTED).holdback == 0.05
    assert route(versions, PROMOTED).rollout == "rollout-1"
    assert route(versions, PROMOTED, now=NOW + timedelta(days=7)).holdback == 0
    assert route(versions, PROMOTED, verified=(V2,)).holdback == 0
    assert route({V2: STATES.LIVE}, replace(PROMOTED, previous=None)).holdback == 0.05  # the base


def test_the_next_rollout_ends_the_holdback_of_the_one_before() -> None:
    newer = replace(ON_STEP, rollout_id="rollout-2")
    versions = {V1: STATES.LAST_GOOD, V2: STATES.LIVE, V3: STATES.CANARY}
    found = route(versions, PROMOTED, newer)
    assert (found.canary, found.holdback, found.salt) == (V3, 0.0, "rollout-2")


def test_units_keep_their_version_from_the_last_step_through_promotion() -> None:
    versions = {V2: STATES.LIVE, V3: STATES.CANARY}
    last = replace(ON_STEP, step=2)
    plan = replace(PLAN, steps=(StepPlan(weight=0.05), StepPlan(weight=0.95)))
    world = RolloutFacts.of([version(*item) for item in versions.items()], [last])
    aliases, verified = [Alias(name="support")], (V2, V3)
    before = build_routes(world, aliases, {"rollout-1": plan}, verified=verified, now=NOW)
    done = replace(last, state=RolloutState.LIVE, live_at=NOW)
    world = RolloutFacts.of([version(V2, STATES.LAST_GOOD), version(V3, STATES.LIVE)], [done])
    after = build_routes(world, aliases, {"rollout-1": plan}, verified=verified, now=NOW)

    units = [f"unit-{k}" for k in range(2000)]
    kept = [
        (
            choose(before["support"], unit, lease_held=True).adapter,
            choose(after["support"], unit, lease_held=True).adapter,
        )
        for unit in units
    ]
    assert all(old == new for old, new in kept)
    assert {old for old, _ in kept} == {V2, V3}


def test_rollback_returns_exactly_the_canarys_units() -> None:
    on = route({V2: STATES.LIVE, V3: STATES.CANARY}, ON_STEP)
    off = route({V2: STATES.LIVE, V3: STATES.QUARANTINED})
    for unit in (f"unit-{k}" for k in range(500)):
        before, after = choose(on, unit, lease_held=True), choose(off, unit, lease_held=True)
        assert after.adapter == V2
        assert (before.arm is Arm.CANARY) == (before.adapter == V3)


def test_a_rollout_without_its_plan_gets_no_traffic() -> None:
    world = RolloutFacts.of([version(V2, STATES.LIVE), version(V3, STATES.CANARY)], [ON_STEP])
    found = build_routes(world, [Alias(name="support")], {}, verified=(V2, V3), now=NOW)
    assert not found["support"].canary_on


def test_the_table_says_where_the_versions_lie() -> None:
    world = RolloutFacts.of([version(V1, STATES.LAST_GOOD), version(V2, STATES.LIVE)], [])
    routes = {"support": Route(alias="support", live=V2, last_good=V1)}
    assert named_paths(world, routes) == {V1: f"/adapters/{V1}", V2: f"/adapters/{V2}"}
