"""The part of alpha that one candidate may use, and the share of each criterion. Pure."""

from collections.abc import Sequence
from math import pi


def alpha_for(k: int, alpha: float) -> float:
    """The level for the `k`-th candidate scored on the same items, counted from 1.

    6 alpha / (pi² k²) sums to alpha over all k (Euler's Σ 1/k² = pi²/6), so the chance that any
    worthless candidate passes is at most alpha for any number of candidates: a union bound. Without
    it ten equal candidates have a chance of 36 to 38 % that one passes at 5 % (simulated).

    Raises:
        ValueError: k is below 1.
    """
    if k < 1:
        raise ValueError(f"candidates are counted from 1, not {k}")
    return 6 * alpha / (pi * k) ** 2


def holm_levels(p_values: Sequence[float], levels: Sequence[float]) -> list[float]:
    """The bar of each p-value, so that the chance of any false pass stays within its level.

    Holm 1979 (Scandinavian Journal of Statistics 6:65), with p / level in place of p where criteria
    have levels of their own: the most convincing of m criteria has to meet its level / m, the next
    its level / (m - 1), and once one fails the rest are held to the same share.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i] / levels[i])
    shares = [1.0] * len(p_values)
    remaining = len(p_values)
    for index in order:
        shares[index] = 1 / remaining
        if p_values[index] <= levels[index] / remaining:
            remaining -= 1
    return [level * share for level, share in zip(levels, shares, strict=True)]
