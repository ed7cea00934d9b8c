"""What the parts say of themselves: a busy host is not a dead one."""

import pytest

from adaptd.daemon.wire.errors import HostError
from adaptd.daemon.wire.routes import RouteTable
from adaptd.daemon.wiring.live_status import HostWatch, SeenPublisher
from tests.support.fakes import FakeHost, FakePublisher

TABLE = RouteTable(epoch=1, base="base")


async def test_a_host_that_never_answered_is_down_or_starting() -> None:
    host = FakeHost()
    host.away = True
    assert (await HostWatch(host, url="u").look())["state"] == "down"
    starting = await HostWatch(host, url="u", starting=lambda: "loading weights, 5 s").look()
    assert (starting["state"], starting["problem"]) == ("starting", "loading weights, 5 s")


async def test_a_host_that_answers_is_ready_and_stays_so_over_a_moment_of_silence() -> None:
    host = FakeHost()
    watch = HostWatch(host, url="u")
    assert (await watch.look())["state"] == "ready"
    host.away = True
    watch._asked = -10.0  # long enough ago to ask again
    known = await watch.look()
    assert known["state"] == "ready"
    assert known["instance"] == "instance-1"


async def test_gateways_have_a_problem_until_one_answers() -> None:
    gateways = FakePublisher()
    publisher = SeenPublisher(gateways, patience_s=5)
    assert publisher.problem == "no gateway has answered yet"
    await publisher.publish(TABLE)
    assert publisher.problem is None
    assert [seen.state.epoch for seen in publisher.seen.values()] == [1]


async def test_gateways_that_are_silent_for_longer_than_the_patience_have_a_problem() -> None:
    gateways = FakePublisher()
    publisher = SeenPublisher(gateways, patience_s=0)
    await publisher.publish(TABLE)
    gateways.away = True
    with pytest.raises(HostError):
        await publisher.publish(TABLE)
    assert publisher.problem


async def test_what_waits_at_the_gateways_is_known_for_as_long_as_they_answer() -> None:
    gateways = FakePublisher()
    publisher = SeenPublisher(gateways, patience_s=60)
    assert publisher.waiting() is None
    await publisher.publish(TABLE)
    assert publisher.waiting() == 0
    gateways.in_flight = {"support@v1-00000000": 2, "base": 1}
    await publisher.publish(TABLE)
    assert publisher.waiting() == 3
    publisher._patience_s = 0
    assert publisher.waiting() is None
