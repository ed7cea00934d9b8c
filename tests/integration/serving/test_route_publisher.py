"""Publishing routes: the real one against a running gateway, the fake by the same contract."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adaptd.daemon.domain.ports import RoutePublisher
from adaptd.daemon.wire.errors import EpochError, HostError
from adaptd.daemon.wire.routes import Route, RouteTable
from adaptd.serving.host.route_publisher import HttpPublisher
from tests.support.fakes import FakePublisher
from tests.support.gateway_world import BASE, V1, V2, OpenAIServer, Site, serve, site
from tests.support.waiting import until


def a_table(epoch: int, live: str | None = V1) -> RouteTable:
    return RouteTable(epoch=epoch, base=BASE, routes={"support": Route(alias="support", live=live)})


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as running:
        yield running


@contextlib.asynccontextmanager
async def connected(gateway: Site, *more_urls: str) -> AsyncIterator[HttpPublisher]:
    token_path = gateway.settings.control_token_path
    async with HttpPublisher([gateway.url, *more_urls], token_path=token_path) as publisher:
        yield publisher


@pytest.fixture(params=["real", "fake"])
async def publisher(request: pytest.FixtureRequest, gateway: Site) -> AsyncIterator[RoutePublisher]:
    if request.param == "fake":
        yield FakePublisher()
        return
    async with connected(gateway) as real:
        yield real


async def test_a_table_is_in_force_once_published_and_may_be_repeated(
    publisher: RoutePublisher,
) -> None:
    assert [state.epoch for state in await publisher.states()] == [0]
    for _ in range(2):
        assert [state.epoch for state in await publisher.publish(a_table(7))] == [7]
    assert [state.epoch for state in await publisher.publish(a_table(9, V2))] == [9]
    assert [state.epoch for state in await publisher.states()] == [9]


async def test_the_table_in_force_can_be_read_back_and_none_is_none(
    publisher: RoutePublisher,
) -> None:
    assert list(await publisher.tables()) == []
    route = Route(alias="support", live=V2, last_good=V1, canary=V1, weight=0.25, salt="r")
    table = RouteTable(
        epoch=7, base=BASE, lease_s=9, routes={"support": route}, paths={V1: "/a/1", V2: "/a/2"}
    )

    await publisher.publish(table)

    assert list(await publisher.tables()) == [table]


async def test_a_gateway_that_is_away_or_answers_nonsense_gives_no_table(
    gateway: Site, unused_tcp_port: int
) -> None:
    async with connected(gateway, f"http://127.0.0.1:{unused_tcp_port}") as publisher:
        with pytest.raises(HostError, match="does not answer"):
            await publisher.tables()
    token_path = gateway.settings.control_token_path
    async with (
        serve(OpenAIServer()) as url,  # no gateway in front
        HttpPublisher([url], token_path=token_path) as publisher,
    ):
        with pytest.raises(HostError, match="does not answer"):
            await publisher.tables()


@pytest.mark.parametrize("epoch", [6, 7])
async def test_another_table_under_an_epoch_not_above_is_refused_with_the_one_in_force(
    publisher: RoutePublisher, epoch: int
) -> None:
    await publisher.publish(a_table(7))
    with pytest.raises(EpochError) as refusal:
        await publisher.publish(a_table(epoch, V2))
    assert refusal.value.epoch == 7
    assert [state.epoch for state in await publisher.states()] == [7]


async def test_a_gateway_that_is_away_does_not_keep_the_others_from_the_table(
    gateway: Site, unused_tcp_port: int
) -> None:
    async with connected(gateway, f"http://127.0.0.1:{unused_tcp_port}") as publisher:
        with pytest.raises(HostError, match="does not answer"):
            await publisher.publish(a_table(3))
    async with connected(gateway) as publisher:
        assert [state.epoch for state in await publisher.states()] == [3]


async def test_a_wrong_token_is_a_gateway_that_does_not_answer(
    gateway: Site, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.token"
    async with HttpPublisher([gateway.url], token_path=wrong) as publisher:
        with pytest.raises(HostError, match="does not answer"):
            await publisher.states()
        wrong.write_text("not the token")
        with pytest.raises(HostError, match="404"):
            await publisher.states()
        wrong.write_text(gateway.place.control)  # read again at each call
        assert [state.epoch for state in await publisher.states()] == [0]


async def test_requests_follow_a_published_table_at_once(gateway: Site) -> None:
    async with connected(gateway) as publisher, gateway.client() as client:
        for epoch, version in ((1, V1), (2, V2), (3, V1)):
            await publisher.publish(a_table(epoch, version))
            messages = [{"role": "user", "content": "hello"}]
            await client.chat.completions.create(model="support", messages=messages)
            assert gateway.server.seen[-1].body["model"] == version


async def test_an_alias_that_is_not_ready_answers_503_until_it_is(gateway: Site) -> None:
    waiting = Route(alias="support", live=V1, ready=False)
    async with connected(gateway) as publisher, gateway.http() as http:
        body = {"model": "support", "messages": [{"role": "user", "content": "hello"}]}
        table = RouteTable(epoch=1, base=BASE, routes={"support": waiting})
        await publisher.publish(table)
        answer = await http.post("/v1/chat/completions", json=body)
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        await publisher.publish(a_table(2))
        assert (await http.post("/v1/chat/completions", json=body)).status_code == 200
        await until(lambda: len(gateway.door.interactions) == 2, within_s=10)
