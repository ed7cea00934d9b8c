"""What the wins and losses on exact match say against a boundary, clusters allowed for. Pure."""

import msgspec
import numpy as np
from scipy import stats

from adaptd.daemon.stats.cluster_means import Evidence, item_sd, mean_evidence
from adaptd.daemon.stats.gains import Floats, Gains
from adaptd.daemon.stats.matched_pairs import difference_p, score_bound, shortfall_p
from adaptd.daemon.stats.sign_flips import sign_flip_p

# Below this many clusters with a difference their dependence cannot be estimated, so it is taken
# to be complete. Simulated with 30 to 100 clusters of 2 to 5 items: at most 0.6 alpha, at any
# dependence.
_CLUSTERS_TO_ESTIMATE = 10
_WIDEST_MARGIN = 0.99  # at 1 every candidate keeps it and the test has nothing to compute


class Counts(msgspec.Struct, frozen=True):
    """Items only the candidate got right, only live got right, and all; fractions where scaled."""

    wins: float
    losses: float
    items: float

    def scaled(self, effect: float) -> "Counts":
        return Counts(self.wins / effect, self.losses / effect, self.items / effect)


def count(gains: Floats) -> Counts:
    """Count item gains of +1, 0 and -1."""
    return Counts(float((gains > 0).sum()), float((gains < 0).sum()), float(len(gains)))


def improvement_evidence(counts: Counts, gains: Gains, *, alpha: float) -> Evidence:
    """Is the candidate right more often? Mid-p McNemar where every cluster has one item.

    Otherwise sign-flip by cluster, which is the same test for single items.
    """
    if not gains.is_single:
        return mean_evidence(gains, 0.0, alpha=alpha)
    low, high = _interval(counts, alpha)
    return Evidence(
        p_above=sign_flip_p(gains.sums),
        p_below=sign_flip_p(-gains.sums),
        low=low,
        high=high,
        sd=item_sd(gains),
        method="mid-p McNemar",
    )


def margin_evidence(counts: Counts, gains: Gains, margin: float, *, alpha: float) -> Evidence:
    """Is the candidate's share of right answers less than `margin` (0 to 1) below live's?

    A bootstrap or t interval collapses to a point where few answers differ and would then prove any
    margin, so the test is exact, on the effective number of items.
    """
    margin = min(margin, _WIDEST_MARGIN)
    effective = counts.scaled(design_effect(counts, gains, alpha=alpha))
    low, high = _interval(effective, alpha)
    return Evidence(
        p_above=difference_p(effective.wins, effective.losses, effective.items, -margin),
        p_below=shortfall_p(effective.wins, effective.losses, effective.items, -margin),
        low=low,
        high=high,
        sd=item_sd(gains),
        method="exact unconditional score test" + ("" if gains.is_single else ", effective items"),
    )


def design_effect(counts: Counts, gains: Gains, *, alpha: float) -> float:
    """How many items are worth one independent item, 1 or more.

    Variance with clusters over variance without, corrected for the few clusters it is estimated
    from (effective sample size: Korn and Graubard 1998, Survey Methodology 24:193). With too few
    differing clusters: Kish's effect of complete dependence, Σ size² / Σ size.
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


def _interval(counts: Counts, alpha: float) -> tuple[float, float]:
    """Score bounds at `alpha` each side; swapping wins and losses mirrors them."""
    low = score_bound(counts.wins, counts.losses, counts.items, alpha)
    return low, -score_bound(counts.losses, counts.wins, counts.items, alpha)
