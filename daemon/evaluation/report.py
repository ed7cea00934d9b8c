"""What an evaluation keeps: the pairs that were judged, and the report the store holds. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from adaptd.daemon.domain.receipts import Receipt
from adaptd.daemon.domain.scores import Score
from adaptd.daemon.evaluation.criteria import Judgement
from adaptd.daemon.evaluation.pairs import Metric, Pair, Suite, value
from adaptd.daemon.evaluation.suites import Item

Scores = Mapping[str, Score]


def pairs_of(items: Sequence[Item], candidate: Scores, live: Scores) -> list[Pair]:
    """Every item with both of its scores, which are found by the items' keys."""
    return [Pair(item.item, item.cluster, candidate[item.key], live[item.key]) for item in items]


def means(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Both metrics of both versions on one suite, whether the gate asks for them or not."""
    return {"items": len(pairs)} | {
        metric.value: {
            "candidate": float(np.mean([value(pair.candidate, metric) for pair in pairs])),
            "live": float(np.mean([value(pair.live, metric) for pair in pairs])),
        }
        for metric in Metric
        if pairs
    }


def report(
    judgement: Judgement,
    measured: Mapping[Suite, Sequence[Pair]],
    *,
    left_out: Mapping[Suite, int],
    receipt: Receipt,
) -> dict[str, Any]:
    """The judgement with all its figures, ready for JSON.

    `left_out` counts items too long for the host; `suites` has the plain means of the others.
    """
    return msgspec.to_builtins(judgement) | {
        "suites": {suite.value: means(pairs) for suite, pairs in measured.items()},
        "left_out": {suite.value: count for suite, count in left_out.items() if count},
        "receipt": {
            "instance": receipt.instance,
            "slope": receipt.slope,
            "residual_ratio": receipt.residual_ratio,
            "effect_ratio": receipt.effect_ratio,
        },
    }
