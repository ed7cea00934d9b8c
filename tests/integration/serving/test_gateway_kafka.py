"""The gateway's events on a real broker: keyed, signed, and kept while the broker is away."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaConsumer

from adaptd.daemon.wire.events import SIGNATURE_HEADER, Feedback, Interaction
from adaptd.daemon.wire.signing import derive, is_signed, load_secret
from tests.support.broker import Broker
from tests.support.gateway_world import V1, Site, site
from tests.support.waiting import LIMIT_S, until

ASK: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(autouse=True)
def collect_sockets() -> Iterator[None]:
    """Let a socket that a client left open fail this test and not a later one."""
    yield
    gc.collect()


@pytest.fixture
async def here(
    tmp_path: Path, broker: Broker, request: pytest.FixtureRequest
) -> AsyncIterator[Site]:
    name = request.node.name.replace("_", "-")[:60]
    topics = {"interactions_topic": f"i-{name}", "feedback_topic": f"f-{name}"}
    for topic in topics.values():
        await asyncio.to_thread(broker.create_topic, topic)
    changes = {"kafka_bootstrap": broker.bootstrap, "events_url": None}
    async with site(tmp_path, **changes, **topics) as running:
        await running.publish(live=V1)
        yield running


def read(broker: Broker, topic: str) -> list[Any]:
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=broker.bootstrap,
        auto_offset_reset="earliest",
        group_id=None,
        consumer_timeout_ms=3000,
    )
    try:
        return list(consumer)
    finally:
        consumer.close()


async def records(broker: Broker, topic: str, count: int) -> list[Any]:
    async def found() -> list[Any] | None:
        have = await asyncio.to_thread(read, broker, topic)
        return have if len(have) >= count else None

    have = await until(found, within_s=30)
    assert len(have) == count
    return have


async def ask(here: Site, count: int) -> list[str]:
    async with here.client() as client:
        answers = [
            await client.chat.completions.create(
                model="support", messages=ASK, metadata={"conversation": f"c{index}"}
            )
            for index in range(count)
        ]
    return [answer.id for answer in answers]


async def test_interactions_are_keyed_by_unit_and_signed(here: Site, broker: Broker) -> None:
    ids = await ask(here, 3)

    found = await records(broker, here.settings.interactions_topic, 3)

    events = {msgspec.json.decode(record.value, type=Interaction).id: record for record in found}
    assert set(events) == set(ids)
    key = derive(load_secret(here.settings.secret_path), "events")
    for index, interaction in enumerate(ids):
        record = events[interaction]
        assert record.key == f"shop:c{index}".encode()
        assert is_signed(key, record.value, dict(record.headers)[SIGNATURE_HEADER])


async def test_feedback_is_on_the_broker_when_it_is_answered(here: Site, broker: Broker) -> None:
    (interaction,) = await ask(here, 1)
    body = {"interaction": interaction, "kind": "rating", "value": 1, "id": "f1"}
    async with here.http() as http:
        assert (await http.post("/v1/feedback", json=body)).status_code == 200
        assert (await http.post("/v1/feedback", json=[body, body])).status_code == 200

    found = await records(broker, here.settings.feedback_topic, 3)
    key = derive(load_secret(here.settings.secret_path), "events")
    for record in found:
        assert record.key == interaction.encode()
        assert is_signed(key, record.value, dict(record.headers)[SIGNATURE_HEADER])
        assert msgspec.json.decode(record.value, type=Feedback).id == "shop:f1"


async def test_while_the_broker_is_away_answers_go_on_and_events_wait(
    here: Site, broker: Broker
) -> None:
    before = await ask(here, 2)
    await records(broker, here.settings.interactions_topic, 2)
    broker.kill()
    try:
        during = await ask(here, 3)
        body = {"interaction": before[0], "kind": "rating", "value": 1, "id": "f1"}
        async with here.http() as http:
            answer = await http.post("/v1/feedback", json=body, timeout=LIMIT_S)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    finally:
        broker.restart()

    async with here.http() as http:

        async def accepted() -> bool:
            return (await http.post("/v1/feedback", json=body, timeout=LIMIT_S)).status_code == 200

        await until(accepted, within_s=60)
    topic = here.settings.interactions_topic

    async def all_there() -> bool:
        have = await asyncio.to_thread(read, broker, topic)
        ids = {msgspec.json.decode(record.value, type=Interaction).id for record in have}
        return ids == {*before, *during}

    assert await until(all_there, within_s=60)


async def test_a_topic_that_is_not_there_yet_holds_events_back_until_it_is(
    tmp_path: Path, broker: Broker
) -> None:
    topic = "made-later"
    changes = {"kafka_bootstrap": broker.bootstrap, "interactions_topic": topic}
    async with site(tmp_path, **changes) as here:
        await here.publish(live=V1)
        await ask(here, 1)
        async with here.http(here.place.control) as http:

            async def failed() -> bool:
                text = (await http.get("/adaptd/metrics")).text
                return "adaptd_gateway_publish_failures_total 0.0" not in text

            await until(failed, within_s=30)
        await asyncio.to_thread(broker.create_topic, topic)

        await records(broker, topic, 1)
