"""Wins and losses on the same items: score and exact tests of a difference of shares. Pure.

`wins` counts items that only the candidate got right, `losses` those that only live did.
"""

# scipy has no types.
# pyright: reportMissingTypeStubs=false
# pyright: reportUnknownMemberType=false

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from adaptd.daemon.stats.gains import Floats

EXACT_UP_TO = 1000  # items: 0.1 s; beyond it the score test's error is below its last digit
_NUISANCE_STEPS = 100


def score_z(wins: ArrayLike, losses: ArrayLike, items: float, difference: float) -> Floats:
    """Tango's score statistic for "the candidate's share less live's is `difference`" (-1 to 1).

    Standard normal under it. At 0 it is McNemar's (wins - losses)/√(wins + losses). (Tango 1998,
    Statistics in Medicine 17:891, where wins are n12 and losses n21.) Counts may be
    fractions. 0 where it is 0/0.
    """
    b, c = np.asarray(wins, dtype=float), np.asarray(losses, dtype=float)
    linear = -b - c + (2 * items - b + c) * difference
    constant = -c * difference * (1 - difference)
    root = np.sqrt(np.maximum(linear**2 - 8 * items * constant, 0))
    losing = (root - linear) / (4 * items)  # the most likely share of losses under the difference
    variance = items * (2 * losing + difference * (1 - difference))
    above = b - c - items * difference
    return np.divide(above, np.sqrt(np.maximum(variance, 1e-300)), where=variance > 1e-12,
                     out=np.zeros(np.broadcast(above, variance).shape))  # fmt: skip


def score_bound(wins: float, losses: float, items: float, alpha: float) -> float:
    """Lower one-sided confidence bound of the difference: the score test inverted by bisection."""
    limit = stats.norm.isf(alpha)
    low, high = -1.0, (wins - losses) / items
    for _ in range(50):
        middle = (low + high) / 2
        if float(score_z(wins, losses, items, middle)) < limit:
            high = middle
        else:
            low = middle
    return low


def difference_p(wins: float, losses: float, items: float, difference: float) -> float:
    """One-sided p that the candidate's share less live's is above `difference`, from -1 to 0.

    Exact up to 1,000 items: the probability of a table whose score is as large, at the share of
    losses that makes it largest (Hsueh, Liu and Chen 2001, Biometrics 57:478). Fractions are
    rounded against the candidate there. Beyond, the score test.
    """
    if items > EXACT_UP_TO:
        return float(stats.norm.sf(score_z(wins, losses, items, difference)))
    return _exact_p(int(wins), int(np.ceil(losses)), int(items), difference, upper=True)


def shortfall_p(wins: float, losses: float, items: float, difference: float) -> float:
    """One-sided p that the candidate's share is further below live's than `difference` allows.

    Exact or by the score test, as `difference_p`.
    """
    if items > EXACT_UP_TO:
        return float(stats.norm.cdf(score_z(wins, losses, items, difference)))
    return _exact_p(int(np.ceil(wins)), int(losses), int(items), difference, upper=False)


@lru_cache(maxsize=4096)
def _exact_p(wins: int, losses: int, items: int, difference: float, *, upper: bool) -> float:
    wins, losses = min(wins, items), min(losses, items)
    losses = min(losses, items - wins) if upper else losses
    wins = wins if upper else min(wins, items - losses)
    observed = float(score_z(wins, losses, items, difference))
    extreme = _extreme_losses(items, difference, observed, upper=upper)
    drop = -difference
    losing = np.linspace(drop, (1 + drop) / 2, _NUISANCE_STEPS + 1)[:, None]
    winning = losing - drop
    count = np.arange(items + 1)
    weight = stats.binom.pmf(count, items, winning)
    among = np.clip(losing / (1 - winning), 0, 1)
    at_most = special.bdtr(np.maximum(extreme, 0), items - count, among)
    within = np.where(extreme < 0, 0.0, at_most)
    worst = (weight * (within if upper else 1 - within)).sum(axis=1).max()
    return min(float(worst), 1.0)


@lru_cache(maxsize=4)  # up to 8 MB each
def _table_scores(items: int, difference: float) -> Floats:
    """Every table's score, [wins, losses]; NaN where wins and losses exceed the items."""
    count = np.arange(items + 1)
    scores = score_z(count[:, None], count[None, :], items, difference)
    return np.where(count[:, None] + count[None, :] > items, np.nan, scores)


def _extreme_losses(items: int, difference: float, observed: float, *, upper: bool) -> np.ndarray:
    """For every number of wins, the most losses that are as good (upper) or better (lower)."""
    scores = _table_scores(items, difference)
    with np.errstate(invalid="ignore"):
        kept = scores >= observed - 1e-9 if upper else scores > observed + 1e-9
    return kept.sum(axis=1) - 1
