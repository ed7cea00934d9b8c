"""Where ids are searched for: never in too few rows, and in few where ids grow."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.ingest.id_ranges import IdRanges
from tests.support.event_samples import an_interaction
from tests.support.ingesting import Ingesting

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)
_ids = st.sets(st.text("019ab", min_size=1, max_size=3), min_size=1, max_size=4)


def at(number: int) -> datetime:
    return BEGAN + timedelta(seconds=number)


@given(transactions=st.lists(_ids, max_size=12), wanted=_ids, most=st.integers(1, 12))
def test_every_row_that_may_have_one_of_the_ids_is_searched(
    transactions: list[set[str]], wanted: set[str], most: int
) -> None:
    ranges = IdRanges(most)
    for number, ids in enumerate(transactions):
        ranges.add(min(ids), max(ids), at=at(number))

    found = ranges.search(min(wanted), max(wanted), now=at(99))
    for number, ids in enumerate(transactions):
        assert at(number) < found.known or at(number) >= found.first or not ids & wanted


def test_of_ids_that_grow_only_the_last_transactions_are_searched() -> None:
    ranges = IdRanges(3)
    for number, (low, high) in enumerate([("a", "c"), ("b", "d"), ("e", "h"), ("g", "j")]):
        ranges.add(low, high, at=at(number))

    assert ranges.search("k", "m", now=at(9)) == (at(1), at(9))
    assert ranges.search("j", "m", now=at(9)) == (at(1), at(3))
    assert ranges.search("d", "m", now=at(9)) == (at(1), at(1))


async def test_a_copy_is_found_whichever_transaction_brought_it() -> None:
    database = Database.open(":memory:")
    ingesting = Ingesting(database)
    for name in ("m", "z", "a", "p"):
        await ingesting.add(an_interaction(id=name))
    for name in ("a", "m", "p", "z"):
        written = await ingesting.add(an_interaction(id=name), an_interaction(id=f"{name}{name}"))
        assert (written.interactions, len(written.duplicates)) == (1, 1)
    database.close()
