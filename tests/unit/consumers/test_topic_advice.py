"""Advice on topic settings that could lose or refuse events."""

import pytest

from adaptd.consumers.kafka.topic_advice import WANTED, TopicSettings, find_faults

GOOD = {
    **WANTED,
    "retention.ms": "604800000",
    "retention.bytes": "-1",
    "max.message.bytes": "1048588",
    "min.insync.replicas": "2",
}


def faults(
    *, partitions: int = 3, replicas: int = 3, window_s: float = 86_400, **config: str
) -> str:
    changed = {name.replace("_", "."): value for name, value in config.items()}
    topic = TopicSettings(name="t", partitions=partitions, replicas=replicas, config=GOOD | changed)
    return "; ".join(fault.what for fault in find_faults([topic], dedupe_window_s=window_s))


def test_what_we_create_ourselves_is_fine() -> None:
    assert faults() == ""
    assert faults(replicas=1, min_insync_replicas="1", retention_ms="-1") == ""


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"cleanup_policy": "compact,delete"}, "compaction"),
        ({"retention_ms": "3600000"}, "1.0 h only"),
        ({"retention_bytes": "1000"}, "last 1000 bytes"),
        ({"max_message_bytes": "500000"}, "without their texts"),
        ({"max_message_bytes": "20000000"}, "dead letters"),
        ({"message_timestamp_type": "CreateTime"}, "senders' clocks"),
        ({"min_insync_replicas": "1"}, "one of 3 replicas"),
    ],
)
def test_what_could_lose_or_refuse_events_is_found(config: dict[str, str], found: str) -> None:
    assert found in faults(**config)


def test_events_must_stay_as_long_as_duplicates_are_looked_for() -> None:
    assert faults(window_s=8 * 86_400) == "events are kept for 168.0 h only"
    assert faults(partitions=1) == "it has one partition only"


def test_what_could_not_be_asked_is_no_fault() -> None:
    assert find_faults([TopicSettings(name="t", partitions=2, replicas=1)], dedupe_window_s=1) == []
