"""Advice on topic settings that could lose events. Pure; used at start and by `adaptd doctor`."""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from adaptd.consumers.decoding.json_events import MAX_EVENT_BYTES

GATEWAY_EVENT_BYTES = 900_000  # the largest event of a gateway, by default
# The settings of topics that adaptd creates, besides the broker's own defaults.
WANTED = {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"}
_DAY_MS = 24 * 3600 * 1000


class TopicSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one topic. `config` holds Kafka's own names; unknown ones are left out."""

    name: str
    partitions: int
    replicas: int
    config: Mapping[str, str] = {}


class TopicFault(msgspec.Struct, frozen=True, kw_only=True):
    """A setting that could lose or refuse events, and what to set instead."""

    topic: str
    what: str
    remedy: str


def find_faults(topics: Iterable[TopicSettings], *, dedupe_window_s: float) -> list[TopicFault]:
    """List the settings that could lose or refuse events. Events are read all the same."""
    return [
        TopicFault(topic=topic.name, what=what, remedy=remedy)
        for topic in topics
        for what, remedy in _judge_topic(topic, dedupe_window_s)
    ]


def _judge_topic(topic: TopicSettings, dedupe_window_s: float) -> Iterator[tuple[str, str]]:
    config = topic.config
    if topic.partitions < 2:
        yield "it has one partition only", "Add partitions before the load grows"
    if "compact" in config.get("cleanup.policy", ""):
        yield "compaction keeps only the last event of a key", "Set cleanup.policy=delete"
    if config.get("message.timestamp.type") == "CreateTime":
        what = "senders' clocks decide when retention deletes an event"
        yield what, "Set message.timestamp.type=LogAppendTime"
    yield from _judge_retention(config, dedupe_window_s)
    yield from _judge_size(_read_number(config, "max.message.bytes"))
    in_sync = _read_number(config, "min.insync.replicas")
    if topic.replicas > 1 and in_sync == 1:
        what = f"an event counts as accepted with one of {topic.replicas} replicas"
        yield what, "Set min.insync.replicas=2"


def _judge_retention(
    config: Mapping[str, str], dedupe_window_s: float
) -> Iterator[tuple[str, str]]:
    kept_ms = _read_number(config, "retention.ms")
    needed_ms = max(_DAY_MS, dedupe_window_s * 1000)
    if kept_ms is not None and 0 <= kept_ms < needed_ms:  # -1: no limit
        what = f"events are kept for {kept_ms / 3_600_000:.1f} h only"
        remedy = f"Set retention.ms to {needed_ms:.0f} or more: a daemon may be away that long"
        yield what, remedy
    kept_bytes = _read_number(config, "retention.bytes")
    if kept_bytes is not None and 0 <= kept_bytes < 1 << 30:  # -1: no limit
        what = f"only the last {kept_bytes} bytes of a partition are kept"
        yield what, "Set retention.bytes=-1, or enough for a day of events"


def _judge_size(limit_bytes: int | None) -> Iterator[tuple[str, str]]:
    if limit_bytes is None:
        return
    if limit_bytes < GATEWAY_EVENT_BYTES:
        what = f"max.message.bytes is {limit_bytes}: larger interactions go without their texts"
        yield what, "Set it to 1000000 or more"
    elif limit_bytes > MAX_EVENT_BYTES + 100_000:
        what = f"max.message.bytes is {limit_bytes}: events over {MAX_EVENT_BYTES} are dead letters"
        yield what, f"Set it to {MAX_EVENT_BYTES} or less"


def _read_number(config: Mapping[str, str], name: str) -> int | None:
    try:
        return int(config[name])
    except (KeyError, ValueError):
        return None
