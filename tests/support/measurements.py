"""Made-up measurements for the tests of the judge: no model, fixed seeds."""

from collections.abc import Sequence

import numpy as np

from adaptd.daemon.domain.scores import Score
from adaptd.daemon.evaluation.pairs import Pair

TOKENS = 4  # of every reference


def a_pair(
    item: int,
    *,
    candidate: bool = True,
    live: bool = True,
    nll: tuple[float, float] = (1.0, 1.0),
    cluster: int | None = None,
) -> Pair:
    """One item. `nll` is the candidate's and live's, in nats per reference token."""
    return Pair(
        f"item-{item}",
        f"group-{item if cluster is None else cluster}",
        Score(candidate, nll[0] * TOKENS, TOKENS),
        Score(live, nll[1] * TOKENS, TOKENS),
    )


def answers(*, wins: int, losses: int, same: int) -> list[Pair]:
    """So many items only the candidate got right, only live got right, and both; one a cluster."""
    outcomes = [(True, False)] * wins + [(False, True)] * losses + [(True, True)] * same
    return [a_pair(i, candidate=c, live=ell) for i, (c, ell) in enumerate(outcomes)]


def nll_gains(
    gains: Sequence[float] | np.ndarray, clusters: Sequence[int] | None = None
) -> list[Pair]:
    """Items on which the candidate needs so many nats per token less than live."""
    return [
        a_pair(i, nll=(5.0 - float(gain), 5.0), cluster=clusters[i] if clusters else None)
        for i, gain in enumerate(gains)
    ]


def mirrored(pairs: Sequence[Pair]) -> list[Pair]:
    """Candidate and live swapped."""
    return [Pair(p.item, p.cluster, p.live, p.candidate) for p in pairs]
