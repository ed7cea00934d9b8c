"""The same items, measured with the candidate and with live: what the judge is given. Pure."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec
import numpy as np
from numpy.typing import NDArray

from adaptd.daemon.domain.scores import Score
from adaptd.daemon.stats.gains import Floats, Gains

Ints = NDArray[np.int64]


class Metric(StrEnum):
    EXACT_MATCH = "exact_match"
    NLL = "nll"


class Suite(StrEnum):
    FRESH = "fresh"  # the current holdout version
    GOLDEN = "golden"  # the policy's own file


class Pair(msgspec.Struct, frozen=True):
    """One item under both versions. Items of one cluster (a group) are not independent."""

    item: str
    cluster: str
    candidate: Score
    live: Score


def value(score: Score, metric: Metric) -> float:
    """The metric itself: 1 or 0 for exact match, nats per reference token for NLL."""
    return float(score.exact) if metric is Metric.EXACT_MATCH else score.nll_per_token


def item_gains(pairs: Sequence[Pair], metric: Metric) -> Floats:
    """The candidate's gain on every item, in order."""
    sign = 1.0 if metric is Metric.EXACT_MATCH else -1.0
    gains = [sign * (value(p.candidate, metric) - value(p.live, metric)) for p in pairs]
    return np.array(gains, dtype=np.float64)


def gains_by_cluster(pairs: Sequence[Pair], metric: Metric) -> Gains:
    """The candidate's gains, one sum a cluster, in the order of the clusters' names."""
    if not pairs:
        return Gains(np.zeros(0), np.zeros(0))
    names = np.array([pair.cluster for pair in pairs])
    _, index = np.unique(names, return_inverse=True)
    sums = np.bincount(index, item_gains(pairs, metric)).astype(np.float64)
    return Gains(sums, np.bincount(index).astype(np.float64))
