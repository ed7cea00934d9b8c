"""Measuring: answers that count as the same, batches that fit, nothing measured twice."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptd.daemon.evaluation.measure import (
    SLACK_TOKENS,
    Bench,
    answer_limit,
    fits,
    in_batches,
    normalise_text,
    score_of,
)
from adaptd.daemon.evaluation.suites import Item
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.lifecycle.evaluations import EvaluationStore
from adaptd.daemon.wire.errors import HostError
from tests.support.fakes import FakeHost


class Heard:
    """A listener that keeps the numbers it receives."""

    def __init__(self) -> None:
        self.from_store = 0
        self.now: list[int] = []

    async def stored(self, items: int) -> None:
        self.from_store += items

    async def measured(self, items: int) -> None:
        self.now.append(items)


def an_item(number: int, *, prompt: int = 3, reference: int = 2) -> Item:
    return Item(
        f"item-{number}", f"group-{number}", [number] * prompt, [9] * reference, f"answer {number}"
    )


@pytest.fixture
async def store() -> AsyncIterator[EvaluationStore]:
    database = Database.open(":memory:")
    yield EvaluationStore(database)
    database.close()


@pytest.mark.parametrize("answer", ["lost parcel", "  lost\n parcel ", "lost\u00a0parcel"])
def test_white_space_does_not_make_an_answer_different(answer: str) -> None:
    assert normalise_text(answer) == "lost parcel"


def test_accents_are_compared_composed_and_case_counts() -> None:
    assert normalise_text("cafe\u0301") == normalise_text("caf\u00e9")
    assert normalise_text("Refund") != normalise_text("refund")


def test_a_score_sums_the_reference_only_and_in_nats() -> None:
    score = score_of(an_item(1), "answer 1", [0.0, -9.0, -9.0, -0.5, -0.25])

    assert (score.exact, score.nll, score.nll_per_token) == (True, 0.75, 0.375)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 30)), max_size=30), st.integers(1, 5))
def test_batches_hold_every_item_once_and_fit_the_host(
    lengths: list[tuple[int, int]], size: int
) -> None:
    items = [an_item(i, prompt=p, reference=r) for i, (p, r) in enumerate(lengths)]
    items = [item for item in items if fits(item, 64)]

    batches = in_batches(items, size=size, max_model_len=64)

    assert sorted(item.item for batch in batches for item in batch) == sorted(i.item for i in items)
    for batch in batches:
        assert len(batch) <= size
        assert answer_limit(batch) >= max(len(i.reference_ids) for i in batch) + SLACK_TOKENS
        assert max(len(i.prompt_ids) for i in batch) + answer_limit(batch) <= 64


async def test_scores_are_kept_batch_by_batch_and_never_measured_twice(
    store: EvaluationStore,
) -> None:
    host, items = FakeHost(), [an_item(i) for i in range(10)]
    bench = Bench(host, store, in_flight=4)
    await bench.measure(None, "fresh@1", items[:6], max_model_len=64, listener=Heard())
    heard = Heard()

    scores = await bench.measure(None, "fresh@1", items, max_model_len=64, listener=heard)

    assert (heard.from_store, heard.now) == (6, [4])
    assert scores.keys() == {item.key for item in items}
    assert await store.scores(None, "fresh@1", list(scores)) == scores


async def test_a_version_and_a_suite_have_scores_of_their_own(store: EvaluationStore) -> None:
    bench, items = Bench(FakeHost(), store), [an_item(1)]
    await bench.measure(None, "fresh@1", items, max_model_len=64, listener=Heard())

    assert await store.scores("support@v1-00000000", "fresh@1", [items[0].key]) == {}
    assert await store.scores(None, "fresh@2", [items[0].key]) == {}


async def test_equal_items_are_measured_once(store: EvaluationStore) -> None:
    one = an_item(1)
    twin = Item("other name", "other group", one.prompt_ids, one.reference_ids, one.reference)
    heard = Heard()

    await Bench(FakeHost(), store).measure(
        None, "fresh@1", [one, twin], max_model_len=64, listener=heard
    )

    assert heard.now == [1]


async def test_a_host_that_scores_too_few_tokens_is_not_believed(store: EvaluationStore) -> None:
    class ShortHost(FakeHost):
        async def logprobs(self, *args: object, **more: object) -> list[list[float]]:
            return [[0.0, -1.0]]

    with pytest.raises(HostError, match="2 of 5 tokens"):
        await Bench(ShortHost(), store).measure(
            None, "fresh@1", [an_item(1)], max_model_len=64, listener=Heard()
        )
