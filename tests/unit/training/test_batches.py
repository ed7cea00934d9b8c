"""The rows of each step, and their padding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptd.daemon.training.batches import MicroBatch, Shape, pad_lengths, plan_batches

ROWS = [Shape(tokens=10 + 7 * (n % 9), targets=3 + n % 4) for n in range(37)]


def plan(rows: list[Shape] = ROWS, **changes: int) -> list[tuple[MicroBatch, ...]]:
    settings = {"steps": 12, "batch": 8, "micro_batch": 4, "seed": 1, "at_most_lengths": 3}
    return plan_batches(rows, **settings | changes)


def test_every_step_has_its_batch_cut_into_micro_batches() -> None:
    for step in plan():
        assert [len(part.rows) for part in step] == [4, 4]


def test_a_batch_that_is_no_multiple_ends_in_a_smaller_micro_batch() -> None:
    steps = plan(batch=13, micro_batch=7)
    assert {tuple(len(part.rows) for part in step) for step in steps} == {(7, 6)}
    assert sorted(row for step in steps[:2] for part in step for row in part.rows) == sorted(
        row for step in plan(batch=13, micro_batch=13)[:2] for part in step for row in part.rows
    )
    shapes = {(len(part.rows), part.length, part.targets) for step in steps for part in step}
    assert len(shapes) <= 2 * 3


def test_every_row_is_seen_once_before_any_is_seen_again() -> None:
    seen = [row for step in plan(steps=37, batch=4) for part in step for row in part.rows]
    for start in range(0, len(seen), 37):
        # a step may straddle two rounds, and is sorted by length
        assert seen.count(seen[start]) == 4
    assert sorted(set(seen)) == list(range(37))


def test_the_same_arguments_give_the_same_plan_and_another_seed_another() -> None:
    assert plan() == plan()
    assert plan(seed=2) != plan()


def test_the_micro_batch_changes_how_a_step_is_cut_never_what_it_holds() -> None:
    def held(micro_batch: int) -> list[list[int]]:
        return [
            sorted(row for part in step for row in part.rows)
            for step in plan(micro_batch=micro_batch)
        ]

    assert held(8) == held(4) == held(2)


def test_rows_fit_their_padding_and_there_are_few_shapes() -> None:
    parts = [part for step in plan() for part in step]
    for part in parts:
        assert part.length >= max(ROWS[row].tokens for row in part.rows)
        assert part.targets >= sum(ROWS[row].targets for row in part.rows)
    assert len({(part.length, part.targets) for part in parts}) <= 3


def test_fewer_rows_than_a_batch_are_repeated() -> None:
    (step,) = plan(ROWS[:3], steps=1)
    assert sorted(row for part in step for row in part.rows).count(0) in (2, 3)


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        plan([])


def test_lengths_are_chosen_where_they_save_most_padding() -> None:
    assert pad_lengths([30, 31, 32, 200], at_most=2) == [32, 208]
    assert pad_lengths([30, 31, 32, 200], at_most=1) == [208]
    assert pad_lengths([5], at_most=3) == [16]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=40), st.integers(1, 4))
def test_some_length_holds_each_and_there_are_no_more_than_allowed(
    needed: list[int], at_most: int
) -> None:
    lengths = pad_lengths(needed, at_most=at_most)

    assert lengths == sorted(lengths)
    assert len(lengths) <= at_most
    assert max(needed) <= lengths[-1] < max(needed) + 16
    assert all(length % 16 == 0 for length in lengths)
