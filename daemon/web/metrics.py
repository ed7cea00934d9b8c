"""`/metrics`: read from the store and the running parts at each scrape. Never a text or a token."""

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from adaptd import __version__
from adaptd.daemon.domain.meters import Distribution
from adaptd.daemon.store.status_reads import StoreFacts
from adaptd.daemon.web.ports import LiveFacts
from adaptd.daemon.web.status import alerts, not_ready, route_of
from adaptd.daemon.wire.texts import encodable

Sample = tuple[tuple[str, ...], float]
_COUNTERS = {
    "adaptd_events_total",
    "adaptd_dead_letters_total",
    "adaptd_ingest_duplicates_total",
    "adaptd_gateway_texts_dropped_total",
    "adaptd_gateway_rows_lost_total",
}

# By name, which distribution of a meter it shows; none where nothing was measured.
_HISTOGRAMS = {
    "adaptd_ingest_commit_seconds": "commit",
    "adaptd_ingest_batch_events": "batch",
    "adaptd_ingest_delay_seconds": "delay",
}

# name -> (labels, meaning). docs/metrics.md says the same; a test compares both ways.
METRICS: dict[str, tuple[tuple[str, ...], str]] = {
    "adaptd_info": (("version",), "Always 1; the label names the release."),
    "adaptd_ready": ((), "1 where /readyz answers 200."),
    "adaptd_part_ready": (("part",), "1 where this part of the daemon is ready."),
    "adaptd_alerts": (("level",), "Things a person should look at, by level."),
    "adaptd_events_total": (("kind",), "Events stored, once each: interaction or feedback."),
    "adaptd_event_last_ingested_seconds": (("kind",), "Unix time of the last event stored."),
    "adaptd_dead_letters_total": (("reason",), "Events that could not be used."),
    "adaptd_dead_letters_unpublished": ((), "Those not in Kafka's topic of dead letters yet."),
    "adaptd_ingest_halted": ((), "1 where ingestion waits for a person."),
    "adaptd_ingest_next_offset": (("topic", "partition"), "Kafka: first offset not stored yet."),
    "adaptd_ingest_lag": ((), "Kafka: messages in the topics that are not stored yet."),
    "adaptd_ingest_partition_lag": (("topic", "partition"), "The same of one partition."),
    "adaptd_ingest_commit_seconds": (("source",), "One transaction, from its begin to its commit."),
    "adaptd_ingest_batch_events": (("source",), "Events in one transaction."),
    "adaptd_ingest_delay_seconds": (("source",), "From append at the broker to commit."),
    "adaptd_ingest_duplicates_total": (("source",), "Events dropped: stored before."),
    "adaptd_feedback_orphans": ((), "Feedback that waits for its interaction."),
    "adaptd_store_bytes": (("file",), "Size of the store's files."),
    "adaptd_policy_version": (("model",), "Version of the policy in force."),
    "adaptd_runs": (("model", "state"), "Training runs by state."),
    "adaptd_run_step": (("model",), "Optimiser step of the run in training."),
    "adaptd_run_steps": (("model",), "Optimiser steps the run in training will take."),
    "adaptd_run_loss": (("model",), "Training loss at the last step, nats a token."),
    "adaptd_run_tokens_per_second": (("model",), "Training speed, pauses apart."),
    "adaptd_run_left_seconds": (
        ("model",),
        "Time the run in training still needs, pauses included.",
    ),
    "adaptd_adapters": (("model", "state"), "Adapter versions by state."),
    "adaptd_evaluations": (("model", "verdict"), "Candidates judged, by verdict."),
    "adaptd_rollouts": (("model", "state"), "Rollouts by state."),
    "adaptd_rollout_step": (("model",), "Canary step of the rollout under way, from 1."),
    "adaptd_canary_weight": (("model",), "Share of units sent to the canary, 0 to 1."),
    "adaptd_holdback": (("model",), "Share of units kept on the last good version, 0 to 1."),
    "adaptd_route_epoch": ((), "Epoch of the newest published route table."),
    "adaptd_restored": ((), "1 while a restored store waits to agree with what runs."),
    "adaptd_host_up": ((), "1 where the serving host answers."),
    "adaptd_gateway_epoch": (("gateway",), "Epoch of the table a gateway has in force."),
    "adaptd_gateway_in_flight": (("gateway", "adapter"), "Requests being answered now."),
    "adaptd_gateway_spool_events": (("gateway",), "Events waiting on a gateway's disk."),
    "adaptd_gateway_texts_dropped_total": (("gateway",), "Interactions sent without texts."),
    "adaptd_gateway_rows_lost_total": (("gateway",), "Interactions lost, memory being full."),
}


def render_metrics(facts: StoreFacts, live: LiveFacts) -> bytes:
    """The Prometheus text format, process metrics included."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Facts(facts, live))
    return generate_latest(registry)


class _Facts(Collector):
    """One scrape's answer."""

    def __init__(self, facts: StoreFacts, live: LiveFacts) -> None:
        self._meters = live.meters
        self._samples = {**_live_samples(live), **_store_samples(facts, live)}

    def collect(self) -> Iterator[Metric]:
        for name, (labels, meaning) in METRICS.items():
            if name in _HISTOGRAMS:
                yield self._make_histogram(name, labels, meaning)
                continue
            kind = CounterMetricFamily if name in _COUNTERS else GaugeMetricFamily
            family = kind(name.removesuffix("_total"), meaning, labels=labels)
            for values, number in self._samples[name]:
                family.add_metric([encodable(value) for value in values], number)
            yield family

    def _make_histogram(self, name: str, labels: Sequence[str], meaning: str) -> Metric:
        family = HistogramMetricFamily(name, meaning, labels=labels)
        for source, meter in self._meters.items():
            found: Distribution = getattr(meter, _HISTOGRAMS[name])
            if found.count:
                family.add_metric([source], found.buckets(), found.total)
        return family


def _live_samples(live: LiveFacts) -> dict[str, list[Sample]]:
    lag = live.ingest.get("lag")
    flying = [
        ((seen.state.gateway, adapter), float(count))
        for seen in live.gateways
        for adapter, count in seen.state.in_flight.items()
    ]
    return {
        "adaptd_info": [((__version__,), 1)],
        "adaptd_ready": [((), not not_ready(live.parts))],
        "adaptd_part_ready": [((part.part,), part.problem is None) for part in live.parts],
        "adaptd_ingest_lag": [] if lag is None else [((), lag)],
        "adaptd_ingest_partition_lag": [
            ((part["topic"], str(part["partition"])), part["lag"])
            for part in live.ingest.get("partitions", ())
            if part["lag"] is not None
        ],
        "adaptd_policy_version": [((p.model,), p.version) for p in live.policies],
        "adaptd_restored": [((), bool(live.restore and live.restore["holds"]))],
        "adaptd_host_up": [((), live.host.get("state") == "ready")],
        "adaptd_gateway_epoch": [((g.state.gateway,), g.state.epoch) for g in live.gateways],
        "adaptd_gateway_in_flight": flying,
        "adaptd_gateway_spool_events": [
            ((g.state.gateway,), g.state.spool_events) for g in live.gateways
        ],
        "adaptd_gateway_texts_dropped_total": [
            ((g.state.gateway,), g.state.texts_dropped) for g in live.gateways
        ],
        "adaptd_gateway_rows_lost_total": [
            ((g.state.gateway,), g.state.rows_lost) for g in live.gateways
        ],
    }


def _store_samples(facts: StoreFacts, live: LiveFacts) -> dict[str, list[Sample]]:
    events = facts.events
    last = {"interaction": events.last_interaction_at, "feedback": events.last_feedback_at}
    levels = [alert.level for alert in alerts(facts, live.problems)]
    return {
        "adaptd_events_total": [
            (("interaction",), sum(row["interactions"] for row in facts.totals_by_source)),
            (("feedback",), sum(row["feedback"] for row in facts.totals_by_source)),
        ],
        "adaptd_event_last_ingested_seconds": [
            ((kind,), moment.timestamp()) for kind, moment in last.items() if moment
        ],
        "adaptd_dead_letters_total": _count_rows(facts.dead_letters_by_reason, "reason"),
        "adaptd_dead_letters_unpublished": [((), events.unpublished_letters)],
        "adaptd_ingest_duplicates_total": [
            ((row["source"],), row["duplicates"]) for row in facts.totals_by_source
        ],
        "adaptd_feedback_orphans": [((), events.orphans)],
        "adaptd_store_bytes": [((file,), size) for file, size in facts.store_bytes.items()],
        "adaptd_ingest_halted": [((), bool(facts.open_halts))],
        "adaptd_alerts": [((level,), levels.count(level)) for level in ("error", "warning")],
        "adaptd_ingest_next_offset": [
            ((row["topic"], str(row["partition"])), row["next_offset"])
            for row in facts.offsets
            if row["topic"]
        ],
        "adaptd_runs": _count_rows(facts.runs_by_state, "model", "state"),
        **_run_samples(facts),
        "adaptd_adapters": _count_rows(facts.adapters_by_state, "model", "state"),
        "adaptd_evaluations": _count_rows(facts.evaluations_by_verdict, "model", "verdict"),
        "adaptd_rollouts": _count_rows(facts.rollouts_by_state, "model", "state"),
        **_route_samples(facts, live),
    }


def _run_samples(facts: StoreFacts) -> dict[str, list[Sample]]:
    fields = {
        "adaptd_run_step": "step",
        "adaptd_run_steps": "total",
        "adaptd_run_loss": "loss",
        "adaptd_run_tokens_per_second": "tokens_per_s",
        "adaptd_run_left_seconds": "eta_s",
    }
    running = [row for row in facts.newest_runs if row["state"] == "training" and row["progress"]]
    return {
        name: [
            ((row["model"],), row["progress"][field])
            for row in running
            if row["progress"].get(field) is not None
        ]
        for name, field in fields.items()
    }


def _route_samples(facts: StoreFacts, live: LiveFacts) -> dict[str, list[Sample]]:
    routes = {policy.model: route_of(facts, policy.model) for policy in live.policies}
    return {
        "adaptd_rollout_step": [
            ((row["model"],), row["step"])
            for row in facts.newest_rollouts
            if row["state"] == "step"
        ],
        "adaptd_canary_weight": [
            ((model,), route["weight"] if route.get("canary_on") else 0.0)
            for model, route in routes.items()
        ],
        "adaptd_holdback": [
            ((model,), route.get("holdback", 0.0)) for model, route in routes.items()
        ],
        "adaptd_route_epoch": [((), row["epoch"]) for row in facts.newest_table],
    }


def _count_rows(rows: Sequence[dict[str, object]], *labels: str) -> list[Sample]:
    return [(tuple(str(row[label]) for label in labels), float(str(row["count"]))) for row in rows]
