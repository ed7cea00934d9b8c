"""Tests of wins and losses on exact match against a boundary, with clusters. Pure."""

# scipy has no types.
# pyright: reportMissingTypeStubs=false
# pyright: reportUnknownMemberType=false

import msgspec
import numpy as np
from scipy import stats

from adaptd.daemon.stats.cluster_means import Evidence, item_sd, mean_evidence
from adaptd.daemon.stats.gains import Floats, Gains
from adaptd.daemon.stats.matched_pairs import difference_p, score_bound, shortfall_p
from adaptd.daemon.stats.sign_flips import sign_flip_p

# Fewer clusters with a difference do not let their dependence be estimated: it is taken to be
# complete then. Simulated with 30 to 100 clusters of 2 to 5 items: at most 0.6 alpha, at any
# dependence.
_CLUSTERS_TO_ESTIMATE = 10
WIDEST_MARGIN = 0.99  # at 1 every candidate keeps it and the test has nothing to compute


class Counts(msgspec.Struct, frozen=True):
    """Items only the candidate got right, only live got right, and all; fractions where scaled."""

    wins: float
    losses: float
    items: float

    def scaled(self, effect: float) -> "Counts":
        return Counts(self.wins / effect, self.losses / effect, self.items / effect)


def count_outcomes(gains: Floats) -> Counts:
    """Count item gains of +1, 0 and -1."""
    return Counts(float((gains > 0).sum()), float((gains < 0).sum()), float(len(gains)))


def improvement_evidence(counts: Counts, gains: Gains, *, alpha: float) -> Evidence:
    """The evidence that the candidate is right more often.

    Mid-p McNemar where every cluster has one item, otherwise sign-flip by cluster, which is the
    same test for single items.
    """
    if not gains.is_single:
        return mean_evidence(gains, 0.0, alpha=alpha)
    low, high = _score_interval(counts, alpha)
    return Evidence(
        p_above=sign_flip_p(gains.sums),
        p_below=sign_flip_p(-gains.sums),
        low=low,
        high=high,
        sd=item_sd(gains),
        method="mid-p McNemar",
    )


def margin_evidence(counts: Counts, gains: Gains, margin: float, *, alpha: float) -> Evidence:
    """The evidence that the share of right answers is less than `margin` (0 to 1) below live's."""
    # The test is exact, on the effective number of items: a bootstrap or t interval collapses to a
    # point where few answers differ and would then prove any margin.
    margin = min(margin, WIDEST_MARGIN)
    effective = counts.scaled(design_effect(counts, gains, alpha=alpha))
    low, high = _score_interval(effective, alpha)
    return Evidence(
        p_above=difference_p(effective.wins, effective.losses, effective.items, -margin),
        p_below=shortfall_p(effective.wins, effective.losses, effective.items, -margin),
        low=low,
        high=high,
        sd=item_sd(gains),
        method="exact unconditional score test" + ("" if gains.is_single else ", effective items"),
    )


def design_effect(counts: Counts, gains: Gains, *, alpha: float) -> float:
    """The number of items that are worth one independent item, 1 or more.

    Variance with clusters over variance without, corrected for the few clusters of the estimate
    (effective sample size: Korn and Graubard 1998, Survey Methodology 24:193). With too few
    differing clusters: the effect of complete dependence, Σ size² / Σ size (Kish 1965, Survey
    Sampling).
    """
    if gains.is_single:
        return 1.0
    if int((gains.sums != 0).sum()) < _CLUSTERS_TO_ESTIMATE:
        return float((gains.sizes**2).sum() / gains.items)
    spread = (gains.sums - gains.mean * gains.sizes) ** 2
    clustered = float(spread.sum()) * gains.clusters / (gains.clusters - 1)
    plain = counts.wins + counts.losses - gains.items * gains.mean**2
    few = stats.t.isf(alpha, gains.clusters - 1) / stats.norm.isf(alpha)
    return float(max(1.0, clustered / plain) * few**2) if plain > 0 else float(np.max(gains.sizes))


def _score_interval(counts: Counts, alpha: float) -> tuple[float, float]:
    """Score bounds at `alpha` each side; swapping wins and losses mirrors them."""
    low = score_bound(counts.wins, counts.losses, counts.items, alpha)
    return low, -score_bound(counts.losses, counts.wins, counts.items, alpha)
