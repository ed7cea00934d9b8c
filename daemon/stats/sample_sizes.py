"""Numbers of items that a one-sided paired test needs. Numbers in, numbers out; pure.

Chances are one-sided: `alpha` of a pass without cause, 80 % of a pass with it.
"""

# scipy has no types.
# pyright: reportMissingTypeStubs=false
# pyright: reportUnknownMemberType=false

from functools import lru_cache
from math import ceil, log, log1p, sqrt

from scipy import stats

from adaptd.daemon.stats.matched_pairs import EXACT_UP_TO, difference_p

POWER = 0.8


def items_to_improve(gain: float, *, discordance: float, alpha: float) -> int:
    """Items to see a share rise by `gain` (0 to 1) where `discordance` of the answers differ.

    ((z_alpha √s + z_power √(s - gain²)) / gain)², s being the discordance (Connor 1987, Biometrics
    43:207).
    """
    z_alpha, z_power = _normal_quantiles(alpha)
    spread = z_alpha * sqrt(discordance) + z_power * sqrt(max(discordance - gain**2, 0))
    return ceil((spread / gain) ** 2)


def items_to_keep(margin: float, *, discordance: float, alpha: float) -> int:
    """Items to show that an equal candidate's share is less than `margin` (0 to 1) below live's.

    (z_alpha + z_power)² s / margin² (Miller 2024, arXiv 2411.00640), and never fewer than a
    candidate with the very same answers needs.
    """
    needed = (sum(_normal_quantiles(alpha)) / margin) ** 2 * discordance
    return max(ceil(needed), fewest_to_keep(margin, alpha=alpha))


@lru_cache(maxsize=256)
def fewest_to_keep(margin: float, *, alpha: float) -> int:
    """Items below which not even a candidate with the very same answers passes the exact test.

    About ln(alpha) / ln(1 - margin), the rule of three's bound (Hanley and Lippman-Hand 1983, JAMA
    249:1743), from which the search starts.
    """
    if margin >= 1:
        return 1
    items = max(ceil(log(alpha) / log1p(-margin)), 1)
    while items <= EXACT_UP_TO and difference_p(0, 0, items, -margin) > alpha:
        items += max(items // 50, 1)
    return items


def items_for_mean(effect: float, *, sd: float, alpha: float) -> int:
    """Items to see a mean gain of `effect`, or to show an equal one within it.

    ((z_alpha + z_power) sd / effect)² (Miller 2024), `sd` being that of the paired difference.
    """
    return ceil((sum(_normal_quantiles(alpha)) * sd / effect) ** 2)


def _normal_quantiles(alpha: float) -> tuple[float, float]:
    return float(stats.norm.isf(alpha)), float(stats.norm.ppf(POWER))
