"""Kafka: whether it answers and has the topics."""

import asyncio

from consumers.topics import BrokerAwayError, Cluster, TopicAdmin, Topics
from daemon.doctor.findings import Finding, error, note, ok, warning
from daemon.domain.kafka import KafkaSecurity

_LIMIT_S = 8


def probe_topics(bootstrap: str, security: KafkaSecurity) -> Cluster | str:
    """Which of our topics the broker has; a text where it does not answer."""
    return asyncio.run(_probe(bootstrap, security))


async def _probe(bootstrap: str, security: KafkaSecurity) -> Cluster | str:
    admin = TopicAdmin(bootstrap, security=security, timeout_s=_LIMIT_S)
    try:
        return await admin.describe(list(Topics().kinds))
    except BrokerAwayError as problem:
        return problem.problem
    finally:
        await admin.close()


def judge_topics(bootstrap: str | None, found: Cluster | str, *, creates: bool) -> list[Finding]:
    """Say whether events can arrive through the broker."""
    if bootstrap is None:
        return [note("kafka", "no broker is set: events come through POST /v1/events only")]
    if isinstance(found, str):
        remedy = "Start it, or set ADAPTD_KAFKA_BOOTSTRAP; without it use POST /v1/events"
        return [error("kafka", f"{bootstrap}: {found}", remedy)]
    missing = found.missing(list(Topics().kinds))
    if missing and not creates:
        what = f"wrong topic: the broker at {bootstrap} lacks {', '.join(missing)}"
        remedy = "Create them, or set ADAPTD_KAFKA_CREATE_TOPICS=true"
        return [error("topics", what, remedy)]
    if missing:
        return [note("topics", f"`adaptd run` will create {', '.join(missing)}")]
    return [_judge_partitions(found)]


def _judge_partitions(found: Cluster) -> Finding:
    counts = {topic: partitions for topic, (_, partitions) in found.topics.items()}
    few = [topic for topic, partitions in counts.items() if partitions < 2]
    if few:
        what = f"one partition only: {', '.join(few)} cannot be read by two consumers"
        return warning("topics", what, "Add partitions before the load grows")
    return ok("topics", "partitions: " + ", ".join(f"{name} {n}" for name, n in counts.items()))
