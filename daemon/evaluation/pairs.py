"""The same items, measured with the candidate and with live, and the candidate's gains. Pure."""

from collections.abc import Sequence

import msgspec
import numpy as np

from adaptd.daemon.domain.scores import Score
from adaptd.daemon.evaluation.metrics import Metric
from adaptd.daemon.stats.gains import Floats, Gains


class Pair(msgspec.Struct, frozen=True):
    """One item under both versions. Items of one cluster (a group) are not independent."""

    item: str
    cluster: str
    candidate: Score
    live: Score


def item_gains(pairs: Sequence[Pair], metric: Metric) -> Floats:
    """The candidate's gain on every item, in order: above 0 is better."""
    gains = [metric.direction * (metric.value(p.candidate) - metric.value(p.live)) for p in pairs]
    return np.array(gains, dtype=np.float64)


def gains_by_cluster(pairs: Sequence[Pair], metric: Metric) -> Gains:
    """The candidate's gains, one sum a cluster, in the order of the clusters' names."""
    if not pairs:
        return Gains(np.zeros(0), np.zeros(0))
    names = np.array([pair.cluster for pair in pairs])
    _, index = np.unique(names, return_inverse=True)
    sums = np.bincount(index, item_gains(pairs, metric)).astype(np.float64)
    return Gains(sums, np.bincount(index).astype(np.float64))
