"""Settings of the Kafka services: the daemon's own defaults, and what a test changes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptd.consumers.decoding.json_events import Kind
from adaptd.consumers.kafka.service import IngestSettings
from adaptd.consumers.rereading.dead_letter_topic import OutboxSettings
from adaptd.consumers.rereading.replay import ReplaySettings
from adaptd.daemon.settings import Settings

_DEFAULTS = Settings.model_construct()  # reads no environment and no adaptd.toml
_UNSIGNED = frozenset(_DEFAULTS.kafka_unsigned_sources)


def ingest_settings(bootstrap: str, directory: Path, **changes: Any) -> IngestSettings:
    """`changes` are fields of IngestSettings."""
    defaults = {
        "security": _DEFAULTS.kafka_security,
        "group": _DEFAULTS.kafka_group,
        "create_topics": _DEFAULTS.kafka_create_topics,
        "partitions": _DEFAULTS.kafka_partitions,
        "session_timeout_s": _DEFAULTS.kafka_session_timeout_s,
        "unsigned_sources": _UNSIGNED,
        "dedupe_window_s": _DEFAULTS.dedupe_window_s,
    }
    return IngestSettings(bootstrap=bootstrap, directory=directory, **(defaults | changes))


def replay_settings(bootstrap: str, kinds: Mapping[str, Kind]) -> ReplaySettings:
    """Settings of replays over a broker without TLS and SASL."""
    return ReplaySettings(
        bootstrap=bootstrap,
        kinds=kinds,
        unsigned_sources=_UNSIGNED,
        security=_DEFAULTS.kafka_security,
    )


def outbox_settings(bootstrap: str, topic: str, *, create_topic: bool) -> OutboxSettings:
    """Settings of the outbox over a broker without TLS and SASL."""
    return OutboxSettings(
        bootstrap=bootstrap,
        topic=topic,
        create_topic=create_topic,
        partitions=_DEFAULTS.kafka_partitions,
        security=_DEFAULTS.kafka_security,
    )
