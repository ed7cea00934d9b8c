"""The negative log-likelihood of the reference, in nats per token."""

from adaptd.daemon.evaluation.gain_tests import ClusterMeans
from adaptd.daemon.evaluation.metrics import Direction, Metric, register_metric

NLL = register_metric(
    Metric(
        name="nll",
        value=lambda score: score.nll_per_token,
        direction=Direction.LOWER_IS_BETTER,
        test=ClusterMeans(sd=0.5),
        unit="nats per token",
        scale=1.0,
        digits=3,
        usual_gain=0.1,
    )
)
