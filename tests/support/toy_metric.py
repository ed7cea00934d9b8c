"""A metric from outside the package: wrong answers that the version was sure of."""

from adaptd.daemon.domain.scores import Score
from adaptd.daemon.evaluation.gain_tests import MatchedShares
from adaptd.daemon.evaluation.metrics import Direction, Metric

SURE_NATS = 0.5  # per token: below it a version was sure of the reference


def is_sure_and_wrong(score: Score) -> float:
    return float(not score.exact and score.nll_per_token < SURE_NATS)


SURE_AND_WRONG = Metric(
    name="sure_and_wrong",
    value=is_sure_and_wrong,
    direction=Direction.LOWER_IS_BETTER,
    test=MatchedShares(discordance=0.05),
    unit="per cent",
    scale=100.0,
    digits=0,
    usual_gain=0.02,
)
