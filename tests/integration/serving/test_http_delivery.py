"""A gateway's events at the daemon's real door, which answers for each event."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptd.serving.capture.delivery import DeliveryError, EncodedEvent, HttpDelivery
from tests.support.daemon_world import ServedParts, settings_for
from tests.support.event_samples import an_interaction, as_bytes
from tests.support.gateway_world import OpenAIServer, serve


@pytest.fixture
def daemon(tmp_path: Path, tiny_base: Path) -> Iterator[ServedParts]:
    with ServedParts(settings_for(tmp_path, tiny_base)) as running:
        yield running


def test_each_event_is_stored_or_a_duplicate_or_told_as_a_dead_letter(
    daemon: ServedParts,
) -> None:
    dead: Counter[str] = Counter()
    delivery = HttpDelivery(
        f"{daemon.url}/v1/events",
        token_path=daemon.settings.control_token_path,
        limit_s=10,
        on_dead_letters=dead.update,
    )
    good = as_bytes(an_interaction(id="good"))
    events = [
        EncodedEvent("k", value) for value in (good, as_bytes(an_interaction(id=5)), b"{", good)
    ]
    try:
        assert delivery.deliver(events) == [], "the daemon keeps them all"
        assert delivery.deliver(events[:1]) == []
    finally:
        delivery.close()

    assert dead == {"invalid": 1, "not_json": 1}


async def test_an_answer_of_somebody_else_is_no_acceptance(tmp_path: Path) -> None:
    """A proxy in between may answer: the events stay in the spool."""
    token = tmp_path / "control.token"
    token.write_text("token")
    async with serve(OpenAIServer()) as url:
        delivery = HttpDelivery(url, token_path=token, limit_s=5)
        with pytest.raises(DeliveryError, match="not a daemon's"):
            await asyncio.to_thread(delivery.deliver, [EncodedEvent("k", b"{}")])
        delivery.close()


def test_an_answer_that_leaves_out_an_event_is_no_acceptance(daemon: ServedParts) -> None:
    token_path = daemon.settings.control_token_path
    delivery = HttpDelivery(f"{daemon.url}/v1/events", token_path=token_path, limit_s=10)
    events = [EncodedEvent("k", value) for value in (as_bytes(an_interaction()), b"")]
    with pytest.raises(DeliveryError, match="1 events, not of 2"):
        delivery.deliver(events)
    delivery.close()
