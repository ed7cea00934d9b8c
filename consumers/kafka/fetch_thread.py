"""The thread in which aiokafka fetches for the Faust app, and what is asked of it from outside.

Used of Faust's internals, and pinned by tests/unit/consumers/test_faust_contract.py:
`_create_worker_consumer`; of aiokafka's: `_isolation_level`, `_fetch_max_wait_ms`,
`_fetch_min_bytes`, `_coordinator.request_rejoin` and `check_errors`,
`_subscription.wait_for_assignment`, `_client.send` and `_client.force_metadata_update`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import aiokafka
from aiokafka.errors import (
    KafkaError,
    NotLeaderForPartitionError,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.fetch import FetchRequest
from faust.transport.drivers import aiokafka as driver

from adaptd.consumers.kafka.batch_bounds import bound_answer, error_codes
from adaptd.daemon.domain.ingest import Partition

# One fetch at a time is under way for a broker. One that asks for quiet partitions only keeps the
# busy ones waiting so long: Faust's 1500 ms took a fifth of the rate. Without a least size every
# event of a busy topic is a fetch of its own: with 64 partitions that tripled the delay.
_FETCH_WAIT_MS = 50
_FETCH_LEAST_BYTES = 64 << 10
_POSITION_S = 0.2
_TELL_S = 2.0
_NOT_PLACED = (-1, 0)  # a position before its end: something waits
# A partition is not where it was: its leader moved, or the topic is gone and maybe made anew.
_PLACELESS = {UnknownTopicOrPartitionError.errno, NotLeaderForPartitionError.errno}
_FETCH_KEY = FetchRequest.API_KEY


class ChunkThread(driver.AIOKafkaConsumerThread):
    """aiokafka in its own thread and loop."""

    is_in_doubt = False  # whether a topic is still the one that was read: look before reading on
    _joining: Any = None  # a future that ends with the next assignment, or with what prevents it

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Faust reads committed records only in its exactly-once mode, which we do not use.
        consumer._isolation_level = "read_committed"  # noqa: SLF001 - it has no setter
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS  # noqa: SLF001 - Faust has no setting
        consumer._fetch_min_bytes = _FETCH_LEAST_BYTES  # noqa: SLF001 - nor for this
        client: Any = consumer._client  # noqa: SLF001 - the only place before batches are unpacked
        client.send = partial(self._send, client.send)
        return consumer

    async def progress(self) -> dict[Partition, tuple[int, int]]:
        """Assigned partitions: position of the next fetch, and where what may be read ends.

        Raises:
            KafkaError: the group does not take us, for lack of rights say.
        """
        return await self.call_thread(self._progress)

    async def check_group(self) -> None:
        """Raises KafkaError where the group does not take us."""
        if self._consumer is not None:
            await self.call_thread(self._ask_group)

    async def tell_group(self, offsets: Mapping[Partition, int]) -> bool:
        """Commit to Kafka, for lag tools only. False where the group is elsewhere just now."""
        return await self.call_thread(self._tell_group, offsets)

    async def rejoin(self) -> None:
        """Ask the group to share its partitions anew.

        A static member that comes back gets its old share: what was added meanwhile (a topic made
        anew, a partition) would stay without a reader.
        """
        await self.call_thread(self._rejoin)

    async def _send(
        self, send: Callable[..., Awaitable[Any]], *request: Any, **options: Any
    ) -> Any:
        """What the client's `send` answers; of fetches only what may be unpacked."""
        response = await send(*request, **options)
        if response.API_KEY == _FETCH_KEY:
            if not _PLACELESS.isdisjoint(error_codes(response)):
                self.is_in_doubt = True
            bound_answer(response)
        return response

    async def _progress(self) -> dict[Partition, tuple[int, int]]:
        consumer = self._ensure_consumer()
        self._check_group(consumer)
        found = {}
        for tp in consumer.assignment():
            found[Partition(tp.topic, tp.partition)] = _NOT_PLACED
            with suppress(TimeoutError, KafkaError):  # being assigned just now
                async with asyncio.timeout(_POSITION_S):
                    position = await consumer.position(tp)
                end = consumer.last_stable_offset(tp)
                known = end is not None and end >= 0
                found[Partition(tp.topic, tp.partition)] = (position, end if known else position)
        return found

    async def _ask_group(self) -> None:
        self._check_group(self._ensure_consumer())

    def _check_group(self, consumer: Any) -> None:
        """aiokafka tells such errors only to those who wait for records; nobody does just then."""
        if self._joining is not None and self._joining.done():
            ended, self._joining = self._joining, None
            if not ended.cancelled() and (error := ended.exception()):
                raise error
        if self._joining is None:
            self._joining = consumer._subscription.wait_for_assignment()  # noqa: SLF001 - no public way
        consumer._coordinator.check_errors()  # noqa: SLF001 - has it try again, and tell us then

    async def _rejoin(self) -> None:
        consumer: Any = self._ensure_consumer()
        with suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(_TELL_S):  # a broker that just started may know no topics
                await consumer._client.force_metadata_update()  # noqa: SLF001 - no public way
        consumer._coordinator.request_rejoin()  # noqa: SLF001 - no public way

    async def _tell_group(self, offsets: Mapping[Partition, int]) -> bool:
        consumer = self._ensure_consumer()
        mine = {aiokafka.TopicPartition(*at): offset for at, offset in offsets.items()}
        mine = {tp: offset for tp, offset in mine.items() if tp in consumer.assignment()}
        try:
            if mine:
                async with asyncio.timeout(_TELL_S):  # aiokafka waits for a coordinator for ever
                    await consumer.commit(mine)
        except (KafkaError, TimeoutError):
            return False  # rebalancing, or the broker is away: the store has the truth
        return True
