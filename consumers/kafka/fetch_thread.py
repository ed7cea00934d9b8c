"""The thread in which aiokafka fetches for the Faust app, and the questions put to it.

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

from adaptd.consumers.kafka.batch_bounds import bound_response, error_codes
from adaptd.daemon.domain.ingest import Partition

# One fetch at a time is under way for each broker. A fetch of quiet partitions keeps the busy ones
# waiting for this long: Faust's 1500 ms took a fifth of the rate. Without a least size every event
# of a busy topic is a fetch of its own: with 64 partitions that tripled the delay.
_FETCH_WAIT_MS = 50
_FETCH_LEAST_BYTES = 64 << 10
_POSITION_S = 0.2
_CALL_S = 2.0
_UNKNOWN_POSITION = (-1, 0)  # before the end, so the stall detector sees that something waits
# A partition is not where it was: its leader moved, or the topic is gone and may be recreated.
_NOT_FOUND = {UnknownTopicOrPartitionError.errno, NotLeaderForPartitionError.errno}
_FETCH_KEY = FetchRequest.API_KEY


class FetchThread(driver.AIOKafkaConsumerThread):
    """aiokafka in its own thread and loop."""

    is_in_doubt = False  # a topic may be another one now: ask the broker before reading on
    _assignment: Any = None  # a future: done at the next assignment, or with what prevents it

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Faust reads committed records only in its exactly-once mode, which we do not use.
        consumer._isolation_level = "read_committed"  # noqa: SLF001 - it has no setter
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS  # noqa: SLF001 - Faust has no setting
        consumer._fetch_min_bytes = _FETCH_LEAST_BYTES  # noqa: SLF001 - nor for this
        client: Any = consumer._client  # noqa: SLF001 - the only place before batches are unpacked
        client.send = partial(self._send_bounded, client.send)
        return consumer

    async def progress(self) -> dict[Partition, tuple[int, int]]:
        """Return the position of the next fetch and the readable end of each assigned partition.

        Raises:
            KafkaError: the group does not admit this member, e.g. for lack of rights.
        """
        return await self.call_thread(self._read_progress)

    async def check_group(self) -> None:
        """Raise KafkaError where the group does not admit this member."""
        if self._consumer is not None:
            await self.call_thread(self._check_own_group)

    async def commit_advisory(self, offsets: Mapping[Partition, int]) -> bool:
        """Commit to Kafka, for lag tools only. False: the group cannot take it now."""
        return await self.call_thread(self._commit_offsets, offsets)

    async def rejoin(self) -> None:
        """Ask the group to share out its partitions again.

        A static member that comes back gets its old share: what was added meanwhile (a recreated
        topic, a partition) would stay without a reader.
        """
        await self.call_thread(self._rejoin_group)

    async def _send_bounded(
        self, send: Callable[..., Awaitable[Any]], *request: Any, **options: Any
    ) -> Any:
        """Send through the client; of a fetch's response keep only what may be unpacked."""
        response = await send(*request, **options)
        if response.API_KEY == _FETCH_KEY:
            if not _NOT_FOUND.isdisjoint(error_codes(response)):
                self.is_in_doubt = True
            bound_response(response)
        return response

    async def _read_progress(self) -> dict[Partition, tuple[int, int]]:
        consumer = self._ensure_consumer()
        self._check_membership(consumer)
        found = {}
        for tp in consumer.assignment():
            found[Partition(tp.topic, tp.partition)] = _UNKNOWN_POSITION
            with suppress(TimeoutError, KafkaError):  # the assignment is not complete yet
                async with asyncio.timeout(_POSITION_S):
                    position = await consumer.position(tp)
                end = consumer.last_stable_offset(tp)
                known = end is not None and end >= 0
                found[Partition(tp.topic, tp.partition)] = (position, end if known else position)
        return found

    async def _check_own_group(self) -> None:
        self._check_membership(self._ensure_consumer())

    def _check_membership(self, consumer: Any) -> None:
        """Raise what keeps this member out of the group."""
        # aiokafka raises such errors only in calls that wait for records or for an assignment, and
        # no records are waited for before the first assignment. Hence the future.
        if self._assignment is not None and self._assignment.done():
            ended, self._assignment = self._assignment, None
            if not ended.cancelled() and (error := ended.exception()):
                raise error
        if self._assignment is None:
            self._assignment = consumer._subscription.wait_for_assignment()  # noqa: SLF001 - no public way
        consumer._coordinator.check_errors()  # noqa: SLF001 - makes it try again and raise to waiters

    async def _rejoin_group(self) -> None:
        consumer: Any = self._ensure_consumer()
        with suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(_CALL_S):  # a broker that just started may know no topics
                await consumer._client.force_metadata_update()  # noqa: SLF001 - no public way
        consumer._coordinator.request_rejoin()  # noqa: SLF001 - no public way

    async def _commit_offsets(self, offsets: Mapping[Partition, int]) -> bool:
        consumer = self._ensure_consumer()
        mine = {aiokafka.TopicPartition(*at): offset for at, offset in offsets.items()}
        mine = {tp: offset for tp, offset in mine.items() if tp in consumer.assignment()}
        try:
            if mine:
                async with asyncio.timeout(_CALL_S):  # aiokafka waits for a coordinator for ever
                    await consumer.commit(mine)
        except (KafkaError, TimeoutError):
            return False  # a rebalance, or the broker is away; the store's offsets are what counts
        return True
