"""The plan of a training: the rows of each step, and the length they are padded to. Pure.

On a CPU every new tensor shape costs seconds, because a kernel is built for it: padding each batch
to its own longest row took 12 s a step where one fixed length took 2. So a job uses a few lengths
only.
"""

import random
from collections.abc import Sequence
from itertools import pairwise

import msgspec


class MicroBatch(msgspec.Struct, frozen=True):
    """Rows that go through the model together, padded to `length` tokens and `targets` targets."""

    rows: tuple[int, ...]
    length: int
    targets: int


class Shape(msgspec.Struct, frozen=True):
    """The tokens of one row, and how many of them are learnt."""

    tokens: int
    targets: int


def plan_batches(
    rows: Sequence[Shape],
    *,
    steps: int,
    batch: int,
    micro_batch: int,
    seed: int,
    at_most_lengths: int,
    multiple: int = 16,
) -> list[tuple[MicroBatch, ...]]:
    """The micro-batches of every step, the same for the same arguments.

    1. Shuffle the rows anew each time all have been seen, and cut the order into steps.
    2. Sort each step by length and cut it into micro-batches; the last of a step holds the rest.
    3. Choose a few lengths, and pad each micro-batch to the shortest that holds it.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("there are no rows to train on")
    order = _endless_order(len(rows), steps * batch, seed)
    # Sorted, so that short rows are not padded to the longest of the step. The order within a step
    # does not change what is learnt.
    cut = [
        _cut_rows(
            sorted(order[k * batch : (k + 1) * batch], key=lambda r: (rows[r].tokens, r)),
            micro_batch,
        )
        for k in range(steps)
    ]
    parts = [[(max(rows[row].tokens for row in part), part) for part in step] for step in cut]
    needed = [longest for step in parts for longest, _ in step]
    lengths = pad_lengths(needed, at_most=at_most_lengths, multiple=multiple)
    padded = [[(_fitting_length(most, lengths), part) for most, part in step] for step in parts]
    widths = _target_widths(rows, padded)
    return [
        tuple(MicroBatch(part, length, widths[length]) for length, part in step) for step in padded
    ]


def pad_lengths(needed: Sequence[int], *, at_most: int, multiple: int = 16) -> list[int]:
    """The `at_most` lengths that hold all of `needed` with the least padding, ascending."""
    rounded = [_round_up(length, multiple) for length in needed]
    choices = sorted(set(rounded))
    counts = [rounded.count(choice) for choice in choices]
    best: list[list[tuple[int, tuple[int, ...]]]] = [[(0, ())] * (len(choices) + 1)]
    for allowed in range(1, at_most + 1):
        row: list[tuple[int, tuple[int, ...]]] = [(0, ())]
        for end in range(1, len(choices) + 1):
            options = []
            for start in range(end):
                cost, chosen = best[allowed - 1][start]
                if start and not chosen:
                    continue  # no length holds the shorter ones
                whole = cost + choices[end - 1] * sum(counts[start:end])
                options.append((whole, (*chosen, choices[end - 1])))
            row.append(min(options))
        best.append(row)
    return list(best[-1][-1][1])


def _endless_order(rows: int, wanted: int, seed: int) -> list[int]:
    shuffler = random.Random(seed)  # noqa: S311 - an order to repeat, not a secret
    order: list[int] = []
    while len(order) < wanted:
        once = list(range(rows))
        shuffler.shuffle(once)
        order += once
    return order[:wanted]


def _cut_rows(rows: list[int], micro_batch: int) -> list[tuple[int, ...]]:
    cuts = [*range(0, len(rows), micro_batch), len(rows)]
    return [tuple(rows[start:end]) for start, end in pairwise(cuts)]


def _target_widths(
    rows: Sequence[Shape], padded: list[list[tuple[int, tuple[int, ...]]]]
) -> dict[int, int]:
    widths: dict[int, int] = {}
    for step in padded:
        for length, part in step:
            targets = _round_up(sum(rows[row].targets for row in part), 16)
            widths[length] = max(targets, widths.get(length, 0))
    return widths


def _fitting_length(tokens: int, lengths: Sequence[int]) -> int:
    return next(length for length in lengths if length >= tokens)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
