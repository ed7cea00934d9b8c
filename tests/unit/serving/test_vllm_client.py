"""A call to vLLM lasts as long as the server counts tokens. Over a stand-in for its HTTP."""

import asyncio

import httpx
import pytest

from adaptd.daemon.wire.errors import HostError
from adaptd.serving.host.vllm_client import VllmHost

CARDS = {"data": [{"id": "base"}]}


class Server:
    """Answers a completion after `busy_looks` looks at its metrics, counting tokens if it works."""

    def __init__(self, *, busy_looks: int, works: bool) -> None:
        self.looks = 0
        self._busy_looks = busy_looks
        self._works = works
        self._done = asyncio.Event()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json=CARDS)
        if request.url.path == "/metrics":
            self.looks += 1
            if self.looks >= self._busy_looks:
                self._done.set()
            count = self.looks if self._works else 7
            return httpx.Response(200, text=f'vllm:prompt_tokens_total{{engine="0"}} {count}.0\n')
        await self._done.wait()
        return httpx.Response(200, json={"choices": [{"index": 0, "text": "pin"}]})


async def test_a_server_that_counts_tokens_may_take_longer_than_the_limit() -> None:
    server = Server(busy_looks=8, works=True)
    async with VllmHost("http://x", limit_s=0.05, transport=httpx.MockTransport(server)) as host:
        assert await host.generate(None, [[1, 2]], max_tokens=1) == ["pin"]


async def test_a_server_that_counts_none_is_given_up() -> None:
    server = Server(busy_looks=1000, works=False)
    async with VllmHost("http://x", limit_s=0.05, transport=httpx.MockTransport(server)) as host:
        with pytest.raises(HostError, match=r"completions was not answered: nothing moved"):
            await host.generate(None, [[1, 2]], max_tokens=1)


async def test_a_server_that_works_for_others_only_is_given_up_in_the_end() -> None:
    server = Server(busy_looks=1000, works=True)
    async with VllmHost("http://x", limit_s=0.05, transport=httpx.MockTransport(server)) as host:
        with pytest.raises(HostError, match="was not answered in"):
            await host.generate(None, [[1, 2]], max_tokens=1)
    assert server.looks > 8
