"""The share of worthless candidates that pass, by enumeration and by simulation with fixed seeds.

Bounds on simulated shares are 3.3 standard errors wide: a correct gate meets them with these seeds.
"""

import numpy as np
import pytest
from scipy import stats

from adaptd.daemon.domain.states import Verdict
from adaptd.daemon.evaluation.criteria import Criterion, Gate
from adaptd.daemon.evaluation.judge import judge, weigh_evidence
from adaptd.daemon.evaluation.metrics.exact_match import EXACT_MATCH
from adaptd.daemon.evaluation.metrics.nll import NLL
from adaptd.daemon.evaluation.suites import Suite
from adaptd.daemon.stats.alpha_spending import alpha_for
from adaptd.daemon.stats.exact_match import Counts, improvement_evidence, margin_evidence
from adaptd.daemon.stats.gains import Gains
from adaptd.daemon.stats.sign_flips import sign_flip_p
from tests.support.measurements import answers, nll_gains

ALPHA = 0.05


def at_most(alpha: float, runs: int) -> float:
    return alpha + 3.3 * np.sqrt(alpha * (1 - alpha) / runs)


def clustered_gains(
    generator: np.random.Generator, sizes: np.ndarray, shares: tuple[float, float], together: float
) -> list[np.ndarray]:
    """Item gains of -1, 0, 1; a share `together` of the clusters answers all items alike."""
    losing, winning = shares
    outcomes = [losing, 1 - losing - winning, winning]
    return [
        np.full(size, generator.choice([-1, 0, 1], p=outcomes))
        if generator.random() < together
        else generator.choice([-1, 0, 1], p=outcomes, size=size)
        for size in sizes
    ]


def summed(gains: list[np.ndarray]) -> tuple[Counts, Gains]:
    flat = np.concatenate(gains)
    counts = Counts(float((flat > 0).sum()), float((flat < 0).sum()), float(len(flat)))
    sums = np.array([gain.sum() for gain in gains], dtype=float)
    return counts, Gains(sums, np.array([len(gain) for gain in gains], dtype=float))


def mcnemar_size(differing: int, alpha: float) -> float:
    """The chance that so many differing answers, each a win or a loss by a coin, pass."""
    wins = np.arange(differing + 1)
    chance = stats.binom.pmf(wins, differing, 0.5)
    mid_p = stats.binom.sf(wins, differing, 0.5) + chance / 2
    return float(chance[mid_p <= alpha].sum())


@pytest.mark.parametrize("items", [100, 200])
@pytest.mark.parametrize("discordance", [0.02, 0.05, 0.1, 0.3, 1.0])
def test_eight_equal_candidates_pass_at_most_alpha_of_the_time(
    items: int, discordance: float
) -> None:
    """Enumerated, not simulated: the sum over the candidates bounds the chance that any passes."""
    differing = np.arange(items + 1)
    weight = stats.binom.pmf(differing, items, discordance)
    chances = [
        sum(weight[n] * mcnemar_size(n, alpha_for(k, ALPHA)) for n in differing if weight[n] > 1e-9)
        for k in range(1, 9)
    ]

    assert sum(chances) <= ALPHA
    if discordance < 1:  # mid-p may exceed a single candidate's part where every answer differs
        assert all(chance <= alpha_for(k, ALPHA) for k, chance in enumerate(chances, 1))


@pytest.mark.parametrize("together", [0.0, 1.0])
@pytest.mark.parametrize("k", [1, 3])
def test_clusters_do_not_make_an_equal_candidate_pass_as_better(together: float, k: int) -> None:
    generator = np.random.default_rng(11)
    alpha, runs = alpha_for(k, ALPHA), 300
    passed = 0
    for _ in range(runs):
        gains = clustered_gains(generator, 1 + generator.poisson(2, 40), (0.1, 0.1), together)
        counts, sums = summed(gains)
        if sign_flip_p(sums.sums) <= alpha:  # the other test can only refuse more
            passed += improvement_evidence(counts, sums, alpha=alpha).p_above <= alpha

    assert passed / runs <= at_most(alpha, runs)


def test_ignoring_the_clusters_would_have_made_it_pass() -> None:
    """The simulation can fail: with each item taken for independent it passes too often."""
    generator = np.random.default_rng(11)
    passed = 0
    for _ in range(150):
        gains = clustered_gains(generator, 1 + generator.poisson(2, 40), (0.1, 0.1), 1.0)
        passed += sign_flip_p(np.concatenate(gains).astype(float)) <= ALPHA

    assert passed / 150 > 2 * ALPHA


@pytest.mark.parametrize("together", [0.0, 1.0])
@pytest.mark.parametrize("winning", [0.0, 0.05])
def test_clusters_do_not_hide_a_drop_of_the_whole_margin(together: float, winning: float) -> None:
    generator = np.random.default_rng(12)
    margin, alpha, runs = 0.05, alpha_for(1, ALPHA), 90
    passed = 0
    for _ in range(runs):
        sizes = 1 + generator.poisson(1, 60)
        gains = clustered_gains(generator, sizes, (winning + margin, winning), together)
        passed += margin_evidence(*summed(gains), margin, alpha=alpha).p_above <= alpha

    assert passed / runs <= at_most(alpha, runs)


def nll_passes(gains: np.ndarray, clusters: list[int] | None, criterion: Criterion) -> bool:
    alpha = alpha_for(1, ALPHA)
    return weigh_evidence(criterion, nll_gains(gains, clusters), alpha=alpha).p_above <= alpha


@pytest.mark.parametrize("spread", ["normal", "heavy"])
def test_correlated_nll_without_a_difference_passes_at_most_alpha_of_the_time(spread: str) -> None:
    generator = np.random.default_rng(13)
    clusters = [i // 3 for i in range(120)]
    alpha, runs = alpha_for(1, ALPHA), 150
    gains_of = [
        generator.normal(0, 1, 40) if spread == "normal" else generator.standard_t(3, 40)
        for _ in range(runs)
    ]
    better = Criterion(NLL, Suite.FRESH)
    passed = sum(
        sign_flip_p(shared) <= 2 * alpha
        and nll_passes(np.repeat(shared, 3) + generator.normal(0, 0.3, 120), clusters, better)
        for shared in gains_of
    )

    assert passed / runs <= at_most(alpha, runs)


def test_a_real_difference_is_found_about_as_often_as_planned() -> None:
    """124 items, 5 points allowed, 5 % differ: 80 % by the formula, 71 % by the exact test."""
    alpha, items, margin = 0.05, 124, 0.05
    differing = stats.multinomial(items, [0.025, 0.025, 0.95])
    chance = 0.0
    for wins in range(9):
        for losses in range(9):
            counts = Counts(wins, losses, items)
            gains = Gains(
                np.concatenate([np.ones(wins), -np.ones(losses), np.zeros(items - wins - losses)]),
                np.ones(items),
            )
            if margin_evidence(counts, gains, margin, alpha=alpha).p_above <= alpha:
                chance += differing.pmf([wins, losses, items - wins - losses])

    assert 0.65 < chance < 0.85


def test_a_much_better_candidate_nearly_always_passes_the_whole_gate() -> None:
    generator = np.random.default_rng(14)
    gate = Gate(
        (Criterion(EXACT_MATCH, Suite.FRESH),),
        (Criterion(EXACT_MATCH, Suite.GOLDEN, 0.05),),
        alpha=ALPHA,
        at_least=100,
    )
    verdicts = []
    for _ in range(20):
        fresh, golden = generator.multinomial(120, [0.2, 0.05, 0.75], size=2)
        suites = {
            Suite.FRESH: answers(wins=fresh[0], losses=fresh[1], same=fresh[2]),
            Suite.GOLDEN: answers(wins=golden[0], losses=golden[1], same=golden[2]),
        }
        verdicts.append(judge(gate, suites, {}).verdict)

    assert verdicts.count(Verdict.PASSED) >= 15
    assert Verdict.FAILED not in verdicts
