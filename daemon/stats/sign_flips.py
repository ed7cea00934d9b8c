"""Sign-flip permutation tests by cluster, computed exactly. Pure; no random numbers.

Under "no difference" the names candidate and live can be swapped within any cluster, so each
cluster's summed gain has either sign with equal chance. (Fisher 1935, The Design of Experiments,
§21; for clusters Gail et al. 1996, Statistics in Medicine 15:1069.)
"""

from math import inf, sqrt

import numpy as np

from adaptd.daemon.stats.gains import Floats, Gains

_MOST_STEPS = 1 << 16
_FEWEST_STEPS = 1 << 14
_STEPS_A_CLUSTER = 16


def sign_flip_p(sums: Floats) -> float:
    """One-sided mid-p that the total gain is this large or larger although signs are arbitrary.

    The mid-p counts half of the probability of the observed total itself. With gains of -1, 0 and 1
    it is the mid-p McNemar test (Fagerland, Lydersen and Laake 2013, BMC Medical Research
    Methodology 13:91). 0.5 where every sum is 0. Each cluster is convolved in turn, on a grid of at
    least 2^14 steps where the sums are not whole numbers: the rounded sums keep their signs'
    symmetry, so the test stays exact.
    """
    steps = _round_to_steps(sums)
    ways = _subset_shares(np.abs(steps))
    observed = int(steps[steps > 0].sum())
    return min(float(ways[observed + 1 :].sum() + ways[observed] / 2), 1.0)


def sign_flip_bound(gains: Gains, alpha: float) -> float:
    """The lower confidence bound of the mean gain: the smallest mean that the test does not refuse.

    Inverts the test of `sums - mean * sizes`, whose p only rises with `mean`. Minus infinity where
    even the most extreme arrangement of signs has a chance above alpha.
    """
    if 0.5 ** (gains.clusters + 1) > alpha:
        return -inf
    high = gains.mean
    low = high - _mean_spread(gains)
    while sign_flip_p(gains.sums - low * gains.sizes) > alpha:
        low -= 2 * (high - low)
    for _ in range(22):  # a millionth of the spread is enough
        middle = (low + high) / 2
        if sign_flip_p(gains.sums - middle * gains.sizes) > alpha:
            high = middle
        else:
            low = middle
    return low


def _mean_spread(gains: Gains) -> float:
    means = gains.sums / gains.sizes
    return max(float(np.ptp(means)), 1e-9) / sqrt(gains.clusters)


def _round_to_steps(sums: Floats) -> np.ndarray:
    total = float(np.abs(sums).sum())
    if total == 0:
        return np.zeros(len(sums), dtype=np.int64)
    if total <= _MOST_STEPS and np.array_equal(sums, np.rint(sums)):
        return sums.astype(np.int64)
    steps = min(max(_FEWEST_STEPS, _STEPS_A_CLUSTER * len(sums)), _MOST_STEPS)
    return np.rint(sums / total * steps).astype(np.int64)


def _subset_shares(sizes: np.ndarray) -> Floats:
    """The share of the 2^n subsets of `sizes` with each sum, from 0 to the sum of all."""
    shares = np.zeros(int(sizes.sum()) + 1)
    shares[0], filled = 1.0, 1
    for size in np.sort(sizes[sizes > 0]):
        head = shares[:filled] / 2
        shares[:filled] = head
        shares[size : size + filled] += head
        filled += int(size)
    return shares
