"""The bytes that wait in memory are bounded, and chunks are cut accordingly."""

import asyncio
from collections import deque
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from adaptd.consumers.kafka.memory_budget import (
    RECORD_BYTES,
    MemoryBudget,
    count_bytes,
    group_by_bytes,
    split_by_bytes,
)
from tests.support.waiting import LIMIT_S


class KafkaRecord(NamedTuple):
    offset: int
    serialized_value_size: int
    serialized_key_size: int = 0
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Piece(NamedTuple):
    size_bytes: int


def records(*sizes: int) -> list[KafkaRecord]:
    return [KafkaRecord(offset, size - RECORD_BYTES) for offset, size in enumerate(sizes)]


def test_small_chunks_stay_whole() -> None:
    found = records(500, 500)
    assert list(split_by_bytes(found, limit_bytes=1000)) == [(found, 1000)]


def test_large_chunks_are_cut_in_order_and_nothing_is_left_out() -> None:
    found = records(600, 600, 400, 5000, 400, 400)
    cut = list(split_by_bytes(found, limit_bytes=1000))
    assert [[record.offset for record in part] for part, _ in cut] == [[0], [1, 2], [3], [4, 5]]
    assert sum(size for _, size in cut) == count_bytes(found)


def test_a_record_without_a_value_counts_too() -> None:
    assert count_bytes([KafkaRecord(0, -1)]) == RECORD_BYTES - 1


def test_keys_and_headers_count_as_values_do() -> None:
    with_key = KafkaRecord(0, 0, serialized_key_size=900_000)
    with_headers = KafkaRecord(1, 0, headers=(("a", b"x" * 500_000), ("b", None)))
    assert count_bytes([with_key]) == 900_000 + RECORD_BYTES
    assert count_bytes([with_headers]) > 500_000 + RECORD_BYTES
    cut = list(split_by_bytes([with_key, with_headers], limit_bytes=1_000_000))
    assert [[record.offset for record in part] for part, _ in cut] == [[0], [1]]


def test_one_chunk_always_has_room_and_the_next_waits() -> None:
    budget = MemoryBudget(1000)
    assert budget.has_room(5000)
    budget.take(5000)
    assert not budget.has_room(1)
    budget.give(5000, epoch=budget.epoch)
    assert budget.has_room(1)


def test_what_waits_from_before_a_new_beginning_counts_until_it_is_given_back() -> None:
    budget = MemoryBudget(1000)
    before = budget.epoch
    budget.take(900)
    budget.begin()
    assert budget.has_room(500), "of what is new one chunk always has"
    budget.take(500)
    assert budget.used_bytes == 1400
    assert not budget.has_room(1)
    budget.give(900, epoch=before)
    assert budget.used_bytes == 500
    assert budget.has_room(500)


def test_what_was_dropped_counts_until_something_newer_is_given_back() -> None:
    budget = MemoryBudget(1000)
    budget.take(900)
    budget.begin()
    budget.take(100)
    budget.begin()
    budget.take(10)
    assert not budget.has_room(1)
    budget.give(10, epoch=budget.epoch)
    assert budget.used_bytes == 0
    assert budget.has_room(1000)


@given(st.lists(st.one_of(st.integers(1, 2000), st.sampled_from(["store", "seek", "rebalance"]))))
def test_reading_never_stands_still_and_memory_is_never_counted_too_low(steps: list[Any]) -> None:
    """A queue as Faust keeps one: in order, emptied by a rebalance, left alone by a new seek."""
    budget, queue = MemoryBudget(1000), deque[tuple[int, int]]()
    for step in steps:
        match step:
            case "store" if queue:
                size, epoch = queue.popleft()
                budget.give(size, epoch=epoch)
            case "rebalance":
                queue.clear()
                budget.begin()
            case "seek":
                budget.begin()
            case int() if budget.has_room(step):
                budget.take(step)
                queue.append((step, budget.epoch))
        assert budget.used_bytes >= sum(size for size, _ in queue)
        assert budget.has_room(2000) or any(epoch == budget.epoch for _, epoch in queue)
    while queue:
        size, epoch = queue.popleft()
        budget.give(size, epoch=epoch)
    assert budget.has_room(1000)


async def test_a_wait_ends_when_something_is_given_back() -> None:
    budget = MemoryBudget(1000)
    budget.take(1000)
    waiting = asyncio.create_task(budget.wait(60))
    await asyncio.sleep(0)
    budget.give(1000, epoch=budget.epoch)
    await asyncio.wait_for(waiting, LIMIT_S)
    await budget.wait(0.01)


def test_transactions_take_chunks_in_order_up_to_their_bytes_and_one_at_least() -> None:
    chunks = [Piece(size) for size in (600, 300, 100, 1, 5000, 900, 200)]
    found = [
        [piece.size_bytes for piece in some] for some in group_by_bytes(chunks, limit_bytes=1000)
    ]
    assert found == [[600, 300, 100], [1], [5000], [900], [200]]


def test_nothing_makes_no_transaction() -> None:
    assert list(group_by_bytes([])) == []
