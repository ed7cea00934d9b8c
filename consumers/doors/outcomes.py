"""What became of each event of a transaction, for those who sent them. The hot path of the door."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec
import pyarrow as pa

from adaptd.daemon.domain.ingest import Address, Decoded, Written


class EventResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one event. `item` counts the body's lines or list items, `index` its batch.

    A duplicate was stored before and is no error. `id` is absent where it could not be read.
    """

    item: int
    index: int = 0
    result: Literal["stored", "duplicate", "dead_letter"]
    id: str | None = None
    reason: str | None = None
    detail: str | None = None


def outcomes(
    sizes: Sequence[int], start: int, decoded: Decoded, written: Written
) -> Iterator[list[EventResult]]:
    """For bodies of so many items each, numbered from `start` across them: events in order."""
    items = [item for size in sizes for item in range(size)]
    found: list[list[EventResult]] = [[] for _ in items]
    for table in (decoded.interactions, decoded.feedback):
        for event_id, position, index in zip(table["id"].to_pylist(), *_places(table), strict=True):
            stored = EventResult(
                item=items[position - start], index=index, result="stored", id=event_id
            )
            found[position - start].append(stored)
    letters = decoded.dead_letters
    told = zip(letters["reason"].to_pylist(), letters["detail"].to_pylist(), strict=True)
    for (reason, detail), position, index in zip(told, *_places(letters), strict=True):
        letter = EventResult(
            item=items[position - start],
            index=index,
            result="dead_letter",
            reason=reason,
            detail=detail,
        )
        found[position - start].append(letter)
    _correct(found, start, written)
    end = 0
    for size in sizes:
        begin, end = end, end + size
        yield [result for each in found[begin:end] for result in _in_order(each)]


def _places(table: pa.Table) -> tuple[list[int], list[int]]:
    """Position and index of every row."""
    return table["position"].to_numpy().tolist(), table["batch_index"].to_numpy().tolist()


def _correct(found: list[list[EventResult]], start: int, written: Written) -> None:
    """Not everything that could be read was stored."""
    changes: dict[tuple[int, int], dict[str, Any]] = {}
    kinds: list[tuple[frozenset[Address], dict[str, Any]]] = [
        (written.duplicates, {"result": "duplicate"}),
        (written.barred, {"result": "dead_letter", "id": None, "reason": "erased"}),
        (written.unstorable, {"result": "dead_letter", "reason": "unstorable"}),
    ]
    for addresses, change in kinds:
        changes |= dict.fromkeys(((at.position - start, at.index) for at in addresses), change)
    for item in {item for item, _ in changes}:
        found[item] = [
            msgspec.structs.replace(result, **changes.get((item, result.index), {}))
            for result in found[item]
        ]


def _in_order(each: list[EventResult]) -> list[EventResult]:
    return each if len(each) == 1 else sorted(each, key=lambda result: result.index)
