"""The gateway's Prometheus metrics, in a registry of their own: vLLM's process has one already."""

from collections.abc import Iterator, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from adaptd.daemon.wire.routes import GatewayState
from adaptd.serving.capture.exchange import Exchange

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
OTHER = "other"  # a model nobody serves: callers must not be able to make new series
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class GatewayMetrics:
    """Counters and histograms of one gateway."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "adaptd_gateway_requests",
            "Requests of authenticated callers.",
            ("model", "status"),
            registry=self._registry,
        )
        self._latency = Histogram(
            "adaptd_gateway_request_seconds",
            "From a request's first byte to its answer's last.",
            ("model",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._first_byte = Histogram(
            "adaptd_gateway_first_byte_seconds",
            "From a request's first byte to a stream's first.",
            ("model",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._dead_letters = Counter(
            "adaptd_gateway_dead_letters",
            "Events the daemon could not use and keeps as dead letters.",
            ("reason",),
            registry=self._registry,
        )

    def count_dead_letters(self, by_reason: Mapping[str, int]) -> None:
        """Count dead letters by reason. Callable from any thread."""
        for reason, count in by_reason.items():
            self._dead_letters.labels(reason).inc(count)

    def count_exchange(self, exchange: Exchange) -> None:
        model = exchange.model if exchange.route else OTHER
        self._requests.labels(model, exchange.status).inc()
        if exchange.route is None or exchange.ended is None:
            return
        self._latency.labels(model).observe(exchange.ended - exchange.began)
        if exchange.streamed and exchange.first_byte is not None:
            self._first_byte.labels(model).observe(exchange.first_byte - exchange.began)

    def render(
        self, state: GatewayState, *, shipped: int, refused: int, publish_failures: int
    ) -> bytes:
        """Render every metric in Prometheus' text format."""
        facts = CollectorRegistry()
        facts.register(
            _StateCollector(
                state, shipped=shipped, refused=refused, publish_failures=publish_failures
            )
        )
        return generate_latest(self._registry) + generate_latest(facts)


class _StateCollector(Collector):
    """Figures that other parts count already, read at the moment of the scrape."""

    def __init__(
        self, state: GatewayState, *, shipped: int, refused: int, publish_failures: int
    ) -> None:
        self._state = state
        self._shipped = shipped
        self._refused = refused
        self._publish_failures = publish_failures

    def collect(self) -> Iterator[Metric]:
        state = self._state
        for name, value, text in (
            ("epoch", state.epoch, "Epoch of the table in force."),
            ("lease_held", state.lease_held, "1 while canaries may get traffic."),
            ("spool_events", state.spool_events, "Events not yet accepted by broker or daemon."),
        ):
            yield GaugeMetricFamily(f"adaptd_gateway_{name}", text, value)
        for name, value, text in (
            ("texts_dropped", state.texts_dropped, "Interactions kept without their texts."),
            ("rows_lost", state.rows_lost, "Interactions lost, memory being full."),
            ("shipped", self._shipped, "Events accepted by broker or daemon."),
            ("refused", self._refused, "Events nobody takes: they lie in refused.ndjson."),
            ("publish_failures", self._publish_failures, "Attempts to publish that failed."),
        ):
            yield CounterMetricFamily(f"adaptd_gateway_{name}", text, value)
        flying = GaugeMetricFamily(
            "adaptd_gateway_in_flight", "Requests being answered now.", labels=["adapter"]
        )
        for adapter, count in state.in_flight.items():
            flying.add_metric([adapter], count)
        yield flying
        working = GaugeMetricFamily(
            "adaptd_gateway_thread_working", "1 while the thread works.", labels=["thread"]
        )
        for thread in state.threads:
            working.add_metric([thread.name], thread.problem is None)
        yield working
