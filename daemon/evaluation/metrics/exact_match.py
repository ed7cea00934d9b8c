"""The share of items whose greedy answer is the reference."""

from adaptd.daemon.evaluation.gain_tests import MatchedShares
from adaptd.daemon.evaluation.metrics import Direction, Metric, register_metric

EXACT_MATCH = register_metric(
    Metric(
        name="exact_match",
        value=lambda score: float(score.exact),
        direction=Direction.HIGHER_IS_BETTER,
        test=MatchedShares(discordance=0.1),
        unit="points",
        scale=100.0,
        digits=1,
        usual_gain=0.05,
    )
)
