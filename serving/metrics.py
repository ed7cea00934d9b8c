"""What a gateway tells Prometheus. A registry of its own: vLLM's process has one already."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from daemon.domain.routes import GatewayState
from serving.exchange import Exchange

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
OTHER = "other"  # a model nobody serves: callers must not be able to make new series
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class GatewayMetrics:
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
        self._gauges = {
            name: Gauge(f"adaptd_gateway_{name}", text, registry=self._registry)
            for name, text in _GAUGES.items()
        }
        self._in_flight = Gauge(
            "adaptd_gateway_in_flight",
            "Requests being answered now.",
            ("adapter",),
            registry=self._registry,
        )

    def count(self, exchange: Exchange) -> None:
        model = exchange.model if exchange.route else OTHER
        self._requests.labels(model, exchange.status).inc()
        if exchange.route is None or exchange.ended is None:
            return
        self._latency.labels(model).observe(exchange.ended - exchange.began)
        if exchange.streamed and exchange.first_byte is not None:
            self._first_byte.labels(model).observe(exchange.first_byte - exchange.began)

    def render(self, state: GatewayState, *, shipped: int, publish_failures: int) -> bytes:
        """Everything, in Prometheus' text format."""
        values = {
            "epoch": state.epoch,
            "lease_held": state.lease_held,
            "spool_events": state.spool_events,
            "texts_dropped": state.texts_dropped,
            "rows_lost": state.rows_lost,
            "shipped": shipped,
            "publish_failures": publish_failures,
        }
        for name, value in values.items():
            self._gauges[name].set(value)
        self._in_flight.clear()
        for adapter, count in state.in_flight.items():
            self._in_flight.labels(adapter).set(count)
        return generate_latest(self._registry)


_GAUGES = {
    "epoch": "Epoch of the table in force.",
    "lease_held": "1 while canaries may get traffic.",
    "spool_events": "Events not yet accepted by broker or daemon.",
    "texts_dropped": "Interactions kept without their texts since the start.",
    "rows_lost": "Interactions lost since the start, memory being full.",
    "shipped": "Events accepted by broker or daemon since the start.",
    "publish_failures": "Attempts to publish that failed since the start.",
}
