"""The guard's verdict from counted facts."""

import msgspec
import pytest

from adaptd.daemon.domain.rollouts import ArmTally, GuardFacts, GuardMetric, LatencyLimit
from adaptd.daemon.rollout.guard import GuardRuling, judge
from adaptd.daemon.rollout.plan import FUSE_ERRORS, GuardRules

RULES = GuardRules()
LIMITS = [LatencyLimit(4, 30.0)]


def facts(*tallies: tuple[GuardMetric, int, int], **changes: object) -> GuardFacts:
    """(metric, events on live, events on canary), all at weight 0.25."""
    found = [
        ArmTally(metric, on_canary, 0.25, events)
        for metric, live, canary in tallies
        for on_canary, events in ((False, live), (True, canary))
        if events
    ]
    return msgspec.structs.replace(GuardFacts(tallies=found), **changes)


def test_nothing_seen_is_clear_and_promotes_nothing() -> None:
    health = judge(GuardFacts(), RULES, LIMITS)
    assert health.verdict is GuardRuling.CLEAR
    assert (health.rollback_e, health.promotion_e, health.promotable) == (1, 1, False)


@pytest.mark.parametrize("metric", [GuardMetric.NEGATIVE, GuardMetric.ERROR, GuardMetric.LATENCY])
def test_any_watched_metric_rolls_back(metric: GuardMetric) -> None:
    health = judge(facts((metric, 2, 25)), RULES, LIMITS)
    assert health.verdict is GuardRuling.ROLL_BACK
    assert health.reason is not None
    assert health.reason.startswith(f"worse than live on {metric}: e ")


def test_a_metric_that_is_not_watched_says_nothing() -> None:
    rules = msgspec.structs.replace(RULES, watch=(GuardMetric.NEGATIVE,))
    health = judge(facts((GuardMetric.ERROR, 0, 50)), rules, LIMITS)
    assert health.verdict is GuardRuling.CLEAR
    assert list(health.worse) == ["negative"]


def test_the_metrics_are_averaged_and_compared_once() -> None:
    health = judge(facts((GuardMetric.NEGATIVE, 8, 10)), RULES, LIMITS)
    assert health.rollback_e == pytest.approx((health.worse["negative"] + 2) / 3)
    assert 20 < health.worse["negative"] < 58
    assert health.verdict is GuardRuling.VETO  # enough alone, not enough among three


def test_latency_without_limits_does_not_dilute_the_others() -> None:
    health = judge(facts((GuardMetric.NEGATIVE, 8, 10)), RULES, [])
    assert list(health.worse) == ["negative", "error"]
    assert health.rollback_e == pytest.approx((health.worse["negative"] + 1) / 2)


def test_latency_must_be_more_than_the_ratio_as_often_slow() -> None:
    seen = [(GuardMetric.LATENCY, 60, 30)]  # 1.5 times as often, at a third of live's units
    assert judge(facts(*seen), RULES, LIMITS).worse["latency"] < 1
    assert judge(facts((GuardMetric.NEGATIVE, 60, 30)), RULES, LIMITS).worse["negative"] > 1


def test_half_the_evidence_of_a_rollback_is_a_veto() -> None:
    health = judge(facts((GuardMetric.ERROR, 3, 6)), RULES, LIMITS)
    assert health.verdict is GuardRuling.VETO
    assert health.worse["error"] >= 20**0.5
    assert health.rollback_e < 20


def test_a_much_better_canary_is_promotable() -> None:
    health = judge(facts((GuardMetric.NEGATIVE, 40, 2)), RULES, LIMITS)
    assert health.promotable
    assert health.promotion_e == health.better["negative"] >= 20


def test_no_events_at_all_never_become_evidence_for_promotion() -> None:
    """Nobody complained about either: not knowing holds (D10)."""
    quiet = facts((GuardMetric.ASSIGNMENT, 3000, 1000), units_live=3000, units_canary=1000)
    assert not judge(quiet, RULES, LIMITS).promotable


def test_metrics_not_promoted_on_neither_help_nor_hinder_promotion() -> None:
    health = judge(facts((GuardMetric.NEGATIVE, 40, 2), (GuardMetric.ERROR, 2, 1)), RULES, LIMITS)
    assert list(health.better) == ["negative"]
    assert health.promotable


def test_uneven_shares_of_units_pause() -> None:
    health = judge(facts((GuardMetric.ASSIGNMENT, 900, 150)), RULES, LIMITS)
    assert health.verdict is GuardRuling.PAUSE
    assert health.sample_ratio_e >= 1000


def test_a_rollback_comes_before_a_pause() -> None:
    seen = [(GuardMetric.ASSIGNMENT, 900, 150), (GuardMetric.NEGATIVE, 2, 30)]
    assert judge(facts(*seen), RULES, LIMITS).verdict is GuardRuling.ROLL_BACK


@pytest.mark.parametrize(
    ("in_a_row", "live_ok", "live_errors", "blown"),
    [
        (FUSE_ERRORS, 1, 0, True),
        (FUSE_ERRORS - 1, 9, 0, False),
        (FUSE_ERRORS, 9, 1, False),  # live fails too: it is the server
        (FUSE_ERRORS, 0, 0, False),  # live was not asked: nothing to tell the two apart
    ],
)
def test_the_fuse_blows_on_errors_in_a_row_that_live_does_not_share(
    in_a_row: int, live_ok: int, live_errors: int, blown: bool
) -> None:
    seen = facts(
        canary_errors_in_a_row=in_a_row, live_ok_since=live_ok, live_errors_since=live_errors
    )
    health = judge(seen, RULES, LIMITS)
    assert health.fuse is blown
    assert (health.verdict is GuardRuling.ROLL_BACK) is blown
    if blown:  # reported apart from the test that alpha covers
        assert health.reason == f"fuse: {FUSE_ERRORS} hard errors in a row, live has none"
        assert health.rollback_e == 1


def test_counts_and_rates_are_reported_per_arm() -> None:
    seen = facts((GuardMetric.NEGATIVE, 30, 5), units_live=300, units_canary=100)
    counts = judge(seen, RULES, LIMITS).counts["negative"]
    assert (counts.live, counts.canary) == (30, 5)
    assert (counts.live_rate, counts.canary_rate) == (0.1, 0.05)
