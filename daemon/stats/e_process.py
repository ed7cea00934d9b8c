"""E-processes on counted events: the one test engine of the guard (D9). Pure.

Under "canary events are at most R0 times as frequent per unit as live's", each event belongs to
the canary with probability at most w·R0 / (w·R0 + 1 - w), where w is the weight logged with its
request. For every R of a grid beyond R0 the likelihood ratio of R against R0 has mean at most 1 per
event, so the chance that the mixture ever reaches 1/alpha is at most alpha, at any number of looks
(Ville 1939, Étude critique de la notion de collectif). States add over events: order, restarts and
batches do not matter.

Stands alone, with one importer, as the guard's pure core.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

WORSE_GRID = (1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0)  # times R0: tests "canary is worse"
# Tests "canary is less than R0 times as bad". The points down to 0.1 save a clearly better canary
# a quarter of the requests (measured: 75 against 100 at weight 0.25).
BETTER_GRID = (0.1, 0.2, 0.35, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
TWO_SIDED_GRID = (0.5, 0.67, 0.8, 0.9, 1.1, 1.25, 1.5, 2.0)  # sample ratio: either side is a fault


def worse_grid(null_ratio: float) -> tuple[float, ...]:
    """The grid for "worse than `null_ratio`": every point lies above it."""
    return tuple(null_ratio * factor for factor in WORSE_GRID)


def better_grid(null_ratio: float) -> tuple[float, ...]:
    """The grid for "better than `null_ratio`": only points below it keep the mean at most 1."""
    return tuple(ratio for ratio in BETTER_GRID if ratio < null_ratio)


def log_steps(weight: Array | float, *, null_ratio: float, grid: Sequence[float]) -> Array:
    """The addend of one event at `weight` to each grid point's state.

    Shape: weight's shape + (2, len(grid)); the 2 are an event on live, then one on the canary.
    """
    w = np.asarray(weight, dtype=np.float64)[..., None]
    ratios = np.asarray(grid, dtype=np.float64)
    on_live = -np.log((w * ratios + 1 - w) / (w * null_ratio + 1 - w))
    on_canary = on_live + np.log(ratios / null_ratio)
    return np.stack([on_live, on_canary], axis=-2)


def e_value(
    weights: ArrayLike,
    on_canary: ArrayLike,
    events: ArrayLike,
    *,
    null_ratio: float,
    grid: Sequence[float],
) -> float:
    """The evidence against the null: the mean over the grid. 1 without events, at most 1e300.

    Each place of the arrays counts `events` in one arm at one logged weight. Events at weight 0 or
    1 cannot be compared with anything and change nothing.
    """
    arms = np.asarray(on_canary, dtype=np.int64)
    steps = log_steps(np.asarray(weights), null_ratio=null_ratio, grid=grid)
    own = steps[np.arange(len(arms)), arms]
    states = (np.asarray(events)[:, None] * own).sum(axis=0)
    top = float(states.max())
    log_mean = top + math.log(float(np.exp(states - top).mean()))
    return math.exp(min(log_mean, 300 * math.log(10)))  # JSON knows no infinity
