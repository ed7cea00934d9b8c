"""The tests that judge a metric's gains, with the items that each of them needs. Pure.

A metric names its test. `margin` is the drop that is still allowed; None asks for an improvement.
"""

from dataclasses import dataclass
from typing import Protocol

from adaptd.daemon.policy.model import MIN_HOLDOUT_GROUPS
from adaptd.daemon.stats.alpha_spending import alpha_for
from adaptd.daemon.stats.cluster_means import Evidence, mean_evidence
from adaptd.daemon.stats.exact_match import (
    WIDEST_MARGIN,
    count_outcomes,
    improvement_evidence,
    margin_evidence,
)
from adaptd.daemon.stats.gains import Floats, Gains
from adaptd.daemon.stats.matched_pairs import difference_p
from adaptd.daemon.stats.sample_sizes import (
    fewest_to_keep,
    items_for_mean,
    items_to_improve,
    items_to_keep,
)

_MOST_CANDIDATES = 10_000


class GainTest(Protocol):
    """A test of the candidate's gains over live."""

    def weigh_gains(
        self, item_gains: Floats, gains: Gains, margin: float | None, *, alpha: float
    ) -> Evidence:
        """The evidence for and against the criterion. `gains` are `item_gains` by cluster."""
        ...

    def usual_items(self, margin: float | None, gain: float, *, alpha: float) -> int:
        """Items to improve by `gain`, or to keep within `margin`, where nothing is known yet."""
        ...

    def fewest_items(self, margin: float | None, *, alpha: float) -> int:
        """Items below which no candidate passes, however good; 0 without such a bound."""
        ...

    def equal_candidates(self, margin: float | None, items: int, *, alpha: float) -> int | None:
        """Candidates with live's very same scores that can pass on these items, one after another.

        None without such a bound.
        """
        ...


@dataclass(frozen=True)
class MatchedShares:
    """Exact tests of scores that are 0 or 1: one answer right, the other wrong.

    `discordance` is the share of items that two versions answer differently, where nothing is known
    yet.
    """

    discordance: float

    def weigh_gains(
        self, item_gains: Floats, gains: Gains, margin: float | None, *, alpha: float
    ) -> Evidence:
        counts = count_outcomes(item_gains)
        if margin is None:
            return improvement_evidence(counts, gains, alpha=alpha)
        return margin_evidence(counts, gains, margin, alpha=alpha)

    def usual_items(self, margin: float | None, gain: float, *, alpha: float) -> int:
        if margin is not None:
            return items_to_keep(margin, discordance=self.discordance, alpha=alpha)
        needed = items_to_improve(gain, discordance=self.discordance, alpha=alpha)
        return max(needed, MIN_HOLDOUT_GROUPS)

    def fewest_items(self, margin: float | None, *, alpha: float) -> int:
        return fewest_to_keep(margin, alpha=alpha) if margin else 0

    def equal_candidates(self, margin: float | None, items: int, *, alpha: float) -> int | None:
        if not margin:
            return None
        p_value = difference_p(0, 0, items, -min(margin, WIDEST_MARGIN)) if items else 1.0
        k = 0
        while p_value <= alpha_for(k + 1, alpha) and k < _MOST_CANDIDATES:
            k += 1
        return k


@dataclass(frozen=True)
class ClusterMeans:
    """Tests of a mean on any scale.

    `sd` is the standard deviation of an item's gain between two versions, where nothing is known
    yet.
    """

    sd: float

    def weigh_gains(
        self, item_gains: Floats, gains: Gains, margin: float | None, *, alpha: float
    ) -> Evidence:
        return mean_evidence(gains, -(margin or 0.0), alpha=alpha)

    def usual_items(self, margin: float | None, gain: float, *, alpha: float) -> int:
        needed = items_for_mean(margin or gain, sd=self.sd, alpha=alpha)
        return max(needed, MIN_HOLDOUT_GROUPS)

    def fewest_items(self, margin: float | None, *, alpha: float) -> int:
        return 0

    def equal_candidates(self, margin: float | None, items: int, *, alpha: float) -> int | None:
        return None
