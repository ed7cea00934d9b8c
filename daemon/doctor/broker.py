"""Kafka: whether it answers, lets us in, has the topics and keeps them as we need them."""

import asyncio

from adaptd.consumers.kafka.topic_admin import BrokerAwayError, Cluster, TopicAdmin, Topics
from adaptd.consumers.kafka.topic_advice import TopicSettings, find_faults
from adaptd.daemon.doctor.findings import Finding, error, note, ok, warning
from adaptd.daemon.wire.errors import join_sentences
from adaptd.daemon.wire.kafka import KafkaSecurity

_LIMIT_S = 8

Probed = tuple[Cluster, list[TopicSettings]]


def probe_topics(bootstrap: str, security: KafkaSecurity) -> Probed | str:
    """Topics of adaptd at the broker with their settings; a text where the broker gives none."""
    return asyncio.run(_ask_broker(bootstrap, security))


async def _ask_broker(bootstrap: str, security: KafkaSecurity) -> Probed | str:
    admin = TopicAdmin(bootstrap, security=security, timeout_s=_LIMIT_S)
    names = list(Topics().kinds)
    try:
        return await admin.describe(names), await admin.settings(names)
    except BrokerAwayError as problem:
        return join_sentences(problem.problem, problem.remedy)
    finally:
        await admin.close()


def judge_topics(
    bootstrap: str | None, found: Probed | str, *, creates: bool, dedupe_window_s: float
) -> list[Finding]:
    """Say whether events can arrive through the broker, and whether they stay there long enough."""
    if bootstrap is None:
        return [note("kafka", "no broker is set: events come through POST /v1/events only")]
    if isinstance(found, str):
        remedy = "Start it, or set ADAPTD_KAFKA_BOOTSTRAP; without it use POST /v1/events"
        return [error("kafka", f"{bootstrap}: {found}", remedy)]
    cluster, settings = found
    missing = cluster.missing(list(Topics().kinds))
    if missing and not creates:
        what = f"wrong topic: the broker at {bootstrap} lacks {', '.join(missing)}"
        remedy = "Create them, or set ADAPTD_KAFKA_CREATE_TOPICS=true"
        return [error("topics", what, remedy)]
    if missing:
        return [note("topics", f"`adaptd run` will create {', '.join(missing)}")]
    return _judge_settings(settings, dedupe_window_s)


def _judge_settings(settings: list[TopicSettings], dedupe_window_s: float) -> list[Finding]:
    found = [
        warning("topics", f"{fault.topic}: {fault.what}", fault.remedy)
        for fault in find_faults(settings, dedupe_window_s=dedupe_window_s)
    ]
    if any(not topic.config for topic in settings):
        what = "their settings cannot be asked"
        found.append(note("topics", what, "Give the user the right DescribeConfigs on them"))
    partitions = ", ".join(f"{topic.name} {topic.partitions}" for topic in settings)
    return found or [ok("topics", f"partitions: {partitions}")]
