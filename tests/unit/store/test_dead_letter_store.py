"""Letters are walked, settled and counted; their counts outlive them."""

from collections.abc import Iterator

import pytest

from adaptd.daemon.domain.dead_letters import DeadLetter, LetterChoice, Redriven
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.ingest.dead_letters import DeadLetterStore
from tests.support.ingesting import Ingesting


@pytest.fixture
def ingesting() -> Iterator[Ingesting]:
    database = Database.open(":memory:")
    yield Ingesting(database)
    database.close()


@pytest.fixture
def letters(ingesting: Ingesting) -> DeadLetterStore:
    return DeadLetterStore(ingesting.database, clock=ingesting.clock)


def fate(letter: DeadLetter, result: str, reason: str | None = None) -> Redriven:
    return Redriven(
        id=letter.id, received_at=letter.received_at, result=result, reason=reason, detail="why"
    )


async def test_letters_are_walked_in_steps_and_each_is_met_once(
    ingesting: Ingesting, letters: DeadLetterStore
) -> None:
    await ingesting.add(*[b"{%d" % number for number in range(5)])
    await ingesting.add(b"\xff")
    choice, seen = LetterChoice(reason="not_json"), []

    while True:
        found, cursor = await letters.waiting(choice, limit=2, max_bytes=1000)
        seen += [letter.bytes for letter in found]
        if cursor is None:
            break
        choice = LetterChoice(reason="not_json", after=cursor)

    assert seen == [b"{%d" % number for number in range(5)]


async def test_a_step_is_bounded_in_bytes_and_never_empty(
    ingesting: Ingesting, letters: DeadLetterStore
) -> None:
    await ingesting.add(b"{" * 100, b"{" * 10, b"{" * 100)

    first, cursor = await letters.waiting(LetterChoice(), limit=9, max_bytes=50)
    rest, end = await letters.waiting(LetterChoice(after=cursor), limit=9, max_bytes=500)

    assert [letter.size_bytes for letter in first] == [100]
    assert [letter.size_bytes for letter in rest] == [10, 100]
    assert end is None


async def test_what_became_of_letters_is_kept(
    ingesting: Ingesting, letters: DeadLetterStore
) -> None:
    await ingesting.add(b"{1", b"{2", b"{3")
    one, two, three = (await letters.waiting(LetterChoice(), limit=9, max_bytes=99))[0]

    results = [fate(one, "stored"), fate(two, "dead", "invalid"), fate(three, "skipped")]
    await letters.settle(results, buried_again=[])

    waiting, _ = await letters.waiting(LetterChoice(), limit=9, max_bytes=99)
    assert [(letter.id, letter.reason) for letter in waiting] == [
        (two.id, "invalid"),
        (three.id, "not_json"),
    ]
    chosen = LetterChoice(ids=[one.id, three.id])
    left, _ = await letters.waiting(chosen, limit=9, max_bytes=99)
    assert [letter.id for letter in left] == [three.id]
    shown = await letters.show(one.id)
    assert shown is not None
    assert shown.redriven_at == ingesting.clock.now


async def test_letters_of_erased_people_are_not_read_again(
    ingesting: Ingesting, letters: DeadLetterStore
) -> None:
    await ingesting.add(b"{1", b"{2")
    blank = "UPDATE dead_letters SET reason = 'erased', bytes = NULL WHERE position = 0"
    await ingesting.database.write(lambda cursor: cursor.execute(blank))

    waiting, _ = await letters.waiting(LetterChoice(), limit=9, max_bytes=99)
    assert [letter.bytes for letter in waiting] == [b"{2"]


async def test_counts_by_reason_outlive_the_letters(
    ingesting: Ingesting, letters: DeadLetterStore
) -> None:
    await ingesting.add(b"{1", b"{2", b"\xff")
    await ingesting.database.write(lambda cursor: cursor.execute("DELETE FROM dead_letters"))
    await ingesting.add(b"{3")

    found = {row.reason: (row.letters, row.kept, row.waiting) for row in await letters.by_reason()}

    assert found == {"not_json": (3, 1, 1), "not_utf8": (1, 0, 0)}


async def test_what_is_published_is_not_published_again(
    ingesting: Ingesting, letters: DeadLetterStore
) -> None:
    await ingesting.add(b"{1", b"{2", b"{3")
    two = await letters.unpublished(limit=2, max_bytes=99)

    await letters.mark_published(two)

    rest = await letters.unpublished(limit=9, max_bytes=99)
    assert [letter.bytes for letter in rest] == [b"{3"]


async def test_letters_of_one_chunk_are_published_in_the_order_they_came(
    ingesting: Ingesting, letters: DeadLetterStore
) -> None:
    values = [b"{%d" % number for number in range(12)]
    await ingesting.add(*values)

    first = await letters.unpublished(limit=11, max_bytes=99)

    assert [letter.bytes for letter in first] == values[:11]
