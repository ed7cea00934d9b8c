"""The supervisor over a real vLLM."""

import asyncio
import os
import signal
from contextlib import suppress

from adaptd.serving.host.server_process import ServerRecord, read_record
from adaptd.serving.host.supervisor import EngineState
from tests.support.vllm_server import START_S, TinyServer
from tests.support.waiting import until


def record_of(server: TinyServer) -> ServerRecord:
    record = read_record(server.home / "vllm.json")
    assert record is not None
    return record


async def test_a_running_vllm_is_adopted_by_the_next_supervisor(vllm: TinyServer) -> None:
    before = record_of(vllm)

    async with vllm.supervisor() as supervisor:
        await supervisor.ensure()

        assert supervisor.status.state is EngineState.READY
        assert supervisor.status.pid == before.pid
        assert not supervisor.status.stale
    assert record_of(vllm) == before
    assert before.took_s


async def test_a_killed_vllm_is_started_again_as_another_instance(vllm: TinyServer) -> None:
    async with vllm.host() as host, vllm.supervisor() as supervisor:
        before = await host.describe()
        watching = asyncio.create_task(supervisor.run())
        try:
            await until(lambda: supervisor.status.state is EngineState.READY, within_s=30)

            os.kill(record_of(vllm).pid, signal.SIGKILL)

            await until(lambda: supervisor.status.restarts == 1, within_s=60)
            await until(lambda: supervisor.status.state is EngineState.READY, within_s=START_S)
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        after = await host.describe()

        assert after.base == before.base
        assert after.instance != before.instance
        assert await host.loaded() == frozenset()
