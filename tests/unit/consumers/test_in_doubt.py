"""A partition with a new leader makes the consumer ask, and no other partition waits for it."""

from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from adaptd.consumers.kafka.faust_app import ChunkConsumer
from adaptd.consumers.kafka.memory_budget import MemoryBudget

_HEALTHY = TopicPartition("t", 1)


class _Reader:
    """Gives the answers in order, and then the last one again and again."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def verify_topics(self) -> bool:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class _Consumer(ChunkConsumer):
    """Each fetch reports a new leader for one partition, and has a record of another one."""

    should_stop = False  # pyright: ignore[reportAssignmentType] - Faust asks its service
    flow_active = True

    def __init__(self, reader: _Reader) -> None:
        self._chain = {_HEALTHY: 0}
        self._verifying = None
        self._must_seek = False
        self._thread: Any = SimpleNamespace(is_in_doubt=False)
        self.budget = MemoryBudget(1 << 30)
        self.app: Any = SimpleNamespace(consumer_generation_id=1, reader=reader)

    async def _fetch_records(self, timeout: float) -> tuple[Any, Any]:  # noqa: ASYNC109 - as in Faust
        self._thread.is_in_doubt = True
        record = SimpleNamespace(
            offset=0, serialized_value_size=1, serialized_key_size=0, headers=()
        )
        return {_HEALTHY: [record]}, {_HEALTHY}

    def _make_message(self, tp: Any, records: Any, size_bytes: int) -> Any:
        return records

    async def handed_over(self, fetches: int) -> int:
        return sum([1 for _ in range(fetches) async for _ in self.getmany(0)])


async def test_records_of_the_other_partitions_are_handed_over() -> None:
    consumer = _Consumer(reader := _Reader(True))

    assert await consumer.handed_over(20) == 20
    assert reader.asked == 20


async def test_nothing_is_handed_over_before_somebody_can_say() -> None:
    consumer = _Consumer(reader := _Reader(False, False, True))

    assert await consumer.handed_over(1) == 1
    assert reader.asked == 3


async def test_where_the_flow_stops_meanwhile_nothing_is_and_a_seek_follows() -> None:
    consumer = _Consumer(_Reader(False))
    consumer.flow_active = False

    assert await consumer.handed_over(1) == 0
    assert consumer._must_seek  # pyright: ignore[reportPrivateUsage] - the next one seeks
