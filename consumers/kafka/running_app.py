"""A running Faust app: its start, its end, and questions to its thread, each with a time limit.

A module of its own, since only these waits depend on how Faust and its thread may hang.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from faust.contrib.asgi import bind_to_running_loop

from adaptd.consumers.kafka.failures import as_client_error
from adaptd.consumers.kafka.faust_app import ChunkConsumer, IngestApp
from adaptd.consumers.kafka.stall_detector import StalledError
from adaptd.daemon.wire.errors import FreshStartError

T = TypeVar("T")
_TICK_S = 1.0
_ANSWER_S = 10.0
_START_S = 60.0
_STOP_S = 30.0


@asynccontextmanager
async def run_app(app: IngestApp) -> AsyncIterator[IngestApp]:
    """Run the app on this loop.

    Raises:
        ClientCrashedError: the app does not start.
        FreshStartError: the app does not stop.
    """
    bind_to_running_loop(app)
    app.finalize()
    try:
        with as_client_error():
            await _start_app(app)
        yield app
    finally:
        try:
            async with asyncio.timeout(_STOP_S):
                await app.stop()
        except TimeoutError as error:
            raise FreshStartError(
                "consumer",
                f"it does not stop within {_STOP_S:.0f} s",
                "The process ends; started again it reads on from the store",
            ) from error


async def _start_app(app: IngestApp) -> None:
    starting = asyncio.ensure_future(app.maybe_start())
    try:
        async with asyncio.timeout(_START_S):
            # Faust waits for its first partitions: for ever, where the group does not admit it.
            while not starting.done():
                await asyncio.wait([starting], timeout=_TICK_S)
                await consumer_of(app).thread.check_group()
        starting.result()
    finally:
        starting.cancel()


def raise_crash(app: IngestApp) -> None:
    """Raise what the app crashed of, if it has."""
    if app.crashed:
        with as_client_error():
            raise app.crash_reason or RuntimeError("the Faust app crashed")


async def ask_thread(question: Awaitable[T]) -> T:
    """Wait for an answer of the consumer's thread. Raise StalledError where none comes."""
    asked = asyncio.ensure_future(question)
    try:
        for _ in range(2):  # the first limit may have run out while this process was stopped
            done, _ = await asyncio.wait([asked], timeout=_ANSWER_S)
            if done:
                with as_client_error():
                    return asked.result()
    finally:
        asked.cancel()
    raise StalledError(
        "consumer",
        f"its thread gave no answer in {2 * _ANSWER_S:.0f} s",
        "The process ends; started again it reads on from the store",
    )


def consumer_of(app: IngestApp) -> ChunkConsumer:
    """Return the app's consumer with its type."""
    return app.consumer  # pyright: ignore[reportReturnType] - IngestApp makes no other
