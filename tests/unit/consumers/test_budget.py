"""What waits in memory is bounded in bytes, and chunks are cut accordingly."""

import asyncio
from typing import NamedTuple

from consumers.budget import RECORD_BYTES, Budget, parts, size_bytes, transactions


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
    assert list(parts(found, limit_bytes=1000)) == [(found, 1000)]


def test_large_chunks_are_cut_in_order_and_nothing_is_left_out() -> None:
    found = records(600, 600, 400, 5000, 400, 400)
    cut = list(parts(found, limit_bytes=1000))
    assert [[record.offset for record in part] for part, _ in cut] == [[0], [1, 2], [3], [4, 5]]
    assert sum(size for _, size in cut) == size_bytes(found)


def test_a_record_without_a_value_counts_too() -> None:
    assert size_bytes([KafkaRecord(0, -1)]) == RECORD_BYTES - 1


def test_keys_and_headers_count_as_values_do() -> None:
    with_key = KafkaRecord(0, 0, serialized_key_size=900_000)
    with_headers = KafkaRecord(1, 0, headers=(("a", b"x" * 500_000), ("b", None)))
    assert size_bytes([with_key]) == 900_000 + RECORD_BYTES
    assert size_bytes([with_headers]) > 500_000 + RECORD_BYTES
    cut = list(parts([with_key, with_headers], limit_bytes=1_000_000))
    assert [[record.offset for record in part] for part, _ in cut] == [[0], [1]]


def test_one_chunk_always_has_room_and_the_next_waits() -> None:
    budget = Budget(1000)
    assert budget.has_room(5000)
    budget.take(5000)
    assert not budget.has_room(1)
    budget.give(5000, epoch=budget.epoch)
    assert budget.has_room(1)


def test_what_was_handed_over_before_a_new_beginning_no_longer_counts() -> None:
    budget = Budget(1000)
    before = budget.epoch
    budget.take(900)
    budget.begin()
    budget.take(500)
    budget.give(900, epoch=before)
    assert budget.used_bytes == 500


async def test_a_wait_ends_when_something_is_given_back() -> None:
    budget = Budget(1000)
    budget.take(1000)
    waiting = asyncio.create_task(budget.wait(60))
    await asyncio.sleep(0)
    budget.give(1000, epoch=budget.epoch)
    await asyncio.wait_for(waiting, 1)
    await budget.wait(0.01)


def test_transactions_take_chunks_in_order_up_to_their_bytes_and_one_at_least() -> None:
    chunks = [Piece(size) for size in (600, 300, 100, 1, 5000, 900, 200)]
    found = [
        [piece.size_bytes for piece in some] for some in transactions(chunks, limit_bytes=1000)
    ]
    assert found == [[600, 300, 100], [1], [5000], [900], [200]]


def test_nothing_makes_no_transaction() -> None:
    assert list(transactions([])) == []
