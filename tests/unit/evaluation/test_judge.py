"""Measurements in, verdict out."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptd.daemon.domain.states import Verdict
from adaptd.daemon.evaluation.criteria import Criterion, Gate, Judgement
from adaptd.daemon.evaluation.judge import combine_verdicts, judge
from adaptd.daemon.evaluation.metrics.exact_match import EXACT_MATCH
from adaptd.daemon.evaluation.metrics.nll import NLL
from adaptd.daemon.evaluation.pairs import Pair
from adaptd.daemon.evaluation.suites import Suite
from tests.support.measurements import a_pair, answers, mirrored, nll_gains

BETTER = Criterion(EXACT_MATCH, Suite.FRESH)
BETTER_NLL = Criterion(NLL, Suite.FRESH)
KEPT = Criterion(EXACT_MATCH, Suite.GOLDEN, 0.05)
KEPT_NLL = Criterion(NLL, Suite.GOLDEN, 0.05)
SAME = answers(wins=0, losses=0, same=200)


def decide(
    fresh: list[Pair] | None = None,
    golden: list[Pair] | None = None,
    *,
    improve: tuple[Criterion, ...] = (BETTER,),
    keep: tuple[Criterion, ...] = (KEPT,),
    k: int = 1,
    at_least: int = 100,
) -> Judgement:
    gate = Gate(improve, keep, alpha=0.05, at_least=at_least)
    measured = {Suite.FRESH: fresh or [], Suite.GOLDEN: golden or []}
    return judge(gate, measured, {Suite.FRESH: k, Suite.GOLDEN: k})


def test_a_clear_improvement_without_a_drop_passes() -> None:
    found = decide(answers(wins=25, losses=5, same=90), answers(wins=6, losses=4, same=190))

    assert found.verdict is Verdict.PASSED
    fresh, golden = found.findings
    assert fresh.estimate == pytest.approx(20 / 120)
    assert fresh.low is not None
    assert 0 < fresh.low < fresh.estimate
    assert (fresh.method, golden.method) == ("mid-p McNemar", "exact unconditional score test")
    assert "+16.7 points" in found.reason


def test_a_proven_drop_fails_however_good_the_rest_is() -> None:
    found = decide(answers(wins=40, losses=0, same=80), answers(wins=2, losses=40, same=158))

    assert found.verdict is Verdict.FAILED
    assert found.reason.startswith("exact_match on golden: -19.0 points")


def test_neither_better_nor_worse_is_inconclusive_and_says_how_many_items_it_lacks() -> None:
    found = decide(answers(wins=8, losses=5, same=107), SAME)

    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.findings[0].items_needed is not None
    assert found.findings[0].items_needed > 100
    assert found.findings[1].items_needed is None
    assert "golden" not in found.reason


def test_being_worse_where_it_should_be_better_fails() -> None:
    assert decide(answers(wins=2, losses=30, same=88), SAME).verdict is Verdict.FAILED


def test_too_few_items_decide_nothing_however_clear() -> None:
    found = decide(answers(wins=60, losses=0, same=0), SAME)

    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason.endswith("not enough evidence: 60 items in 60 groups, needs 100 in 30")
    assert found.findings[0].items_needed == 40
    assert found.findings[0].candidate == 1.0


def test_many_items_in_few_clusters_decide_nothing() -> None:
    fresh = [a_pair(i, live=False, cluster=i % 29) for i in range(200)]

    assert "200 items in 29 groups" in decide(fresh, SAME).findings[0].reason


def test_a_suite_nobody_measured_decides_nothing() -> None:
    assert decide(answers(wins=40, losses=0, same=80)).verdict is Verdict.INCONCLUSIVE


def test_later_candidates_on_the_same_items_have_to_be_more_convincing() -> None:
    fresh = answers(wins=20, losses=8, same=92)

    first, eighth = decide(fresh, SAME), decide(fresh, SAME, k=8)

    assert (first.verdict, eighth.verdict) == (Verdict.PASSED, Verdict.INCONCLUSIVE)
    assert eighth.findings[0].alpha == pytest.approx(first.findings[0].alpha / 64)


def test_one_of_two_improvements_is_enough_and_is_held_to_half_of_alpha() -> None:
    gains = np.random.default_rng(2).normal(0.4, 0.5, 120)
    found = decide(nll_gains(gains), SAME, improve=(BETTER, BETTER_NLL))

    assert found.verdict is Verdict.PASSED
    exact, nll = found.findings[:2]
    assert (exact.verdict, nll.verdict) == (Verdict.INCONCLUSIVE, Verdict.PASSED)
    assert nll.alpha == pytest.approx(exact.alpha / 2)


def test_nll_that_drops_past_its_margin_fails_and_within_it_passes() -> None:
    noise = np.random.default_rng(4).normal(0, 0.1, 200)

    worse = decide(answers(wins=40, losses=0, same=80), nll_gains(noise - 0.3), keep=(KEPT_NLL,))
    within = decide(answers(wins=40, losses=0, same=80), nll_gains(noise), keep=(KEPT_NLL,))

    assert (worse.verdict, within.verdict) == (Verdict.FAILED, Verdict.PASSED)


def test_clusters_that_move_together_count_as_one() -> None:
    """20 wins in 4 conversations are 4 pieces of evidence, not 20."""
    fresh = [a_pair(i, live=i >= 20, cluster=i // 5) for i in range(200)]

    together, apart = decide(fresh, SAME), decide(answers(wins=20, losses=0, same=180), SAME)

    assert (together.verdict, apart.verdict) == (Verdict.INCONCLUSIVE, Verdict.PASSED)


def test_the_report_is_plain_json_and_the_same_every_time() -> None:
    fresh = nll_gains(np.random.default_rng(5).normal(0, 1, 110), [i // 2 for i in range(110)])

    first = decide(fresh, SAME, improve=(BETTER, BETTER_NLL), keep=(KEPT, KEPT_NLL))

    assert msgspec.json.decode(msgspec.json.encode(first), type=Judgement) == first
    assert decide(fresh, SAME, improve=(BETTER, BETTER_NLL), keep=(KEPT, KEPT_NLL)) == first


def test_nothing_to_improve_leaves_what_must_not_drop() -> None:
    assert combine_verdicts([], [Verdict.PASSED]) is Verdict.PASSED
    assert combine_verdicts([], [Verdict.INCONCLUSIVE]) is Verdict.INCONCLUSIVE


counted = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(20, 80))


@settings(max_examples=15, deadline=None)
@given(counted)
def test_swapping_candidate_and_live_mirrors_the_finding(counts: tuple[int, int, int]) -> None:
    fresh = answers(wins=counts[0], losses=counts[1], same=counts[2] + 30)

    one = decide(fresh, SAME, at_least=30).findings[0]
    other = decide(mirrored(fresh), SAME, at_least=30).findings[0]

    assert one.estimate == pytest.approx(-(other.estimate or 0))
    assert one.p == pytest.approx(other.p_worse)
    assert one.low == pytest.approx(-(other.high or 0), abs=1e-9)


@settings(max_examples=12, deadline=None)
@given(counted, st.integers(1, 100))
def test_more_of_the_same_answers_never_turn_a_missing_improvement_into_one(
    counts: tuple[int, int, int], more: int
) -> None:
    wins, losses, same = counts
    before = decide(answers(wins=wins, losses=losses, same=same + 30), SAME, at_least=30)
    after = decide(answers(wins=wins, losses=losses, same=same + 30 + more), SAME, at_least=30)

    assert after.findings[0].p == pytest.approx(before.findings[0].p)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(40, 150))
def test_one_more_win_or_one_loss_less_never_turns_pass_into_fail(
    wins: int, losses: int, same: int
) -> None:
    def kept(wins: int, losses: int, same: int) -> float:
        golden = answers(wins=wins, losses=losses, same=same)
        return decide(None, golden, at_least=30).findings[1].p or 0.0

    base = kept(wins, losses + 1, same)
    assert kept(wins + 1, losses + 1, same - 1) <= base + 1e-9
    assert kept(wins, losses, same + 1) <= base + 1e-9
