"""One row per interaction with the feedback that counts for it, as known at a time."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adaptd.consumers.decoding.decode import Sender
from adaptd.daemon.store.database.database import Database
from tests.support.event_samples import NOON, a_correction, a_rating, an_interaction
from tests.support.ingesting import Ingesting

HOUR = timedelta(hours=1)


@pytest.fixture
def ingesting() -> Iterator[Ingesting]:
    database = Database.open(":memory:")
    yield Ingesting(database, NOON + HOUR)
    database.close()


async def examples(
    ingesting: Ingesting, as_of: datetime | None = None, **only: str
) -> list[dict[str, Any]]:
    names = ", ".join(f"{name} := ${name}" for name in only)
    statement = f"FROM examples_as_of($as_of{', ' + names if names else ''}) ORDER BY id, tenant"
    return await ingesting.ask(statement, as_of=as_of or NOON + 100 * HOUR, **only)


async def only_example(ingesting: Ingesting, as_of: datetime | None = None) -> dict[str, Any]:
    [row] = await examples(ingesting, as_of)
    return row


def said(minutes: int) -> str:
    return (NOON + timedelta(minutes=minutes)).isoformat()


def by(principal: str, tenant: str) -> Sender:
    return Sender(False, principal, None, stamps_tenant=True, tenant=tenant)


async def test_an_interaction_without_feedback_is_an_example(ingesting: Ingesting) -> None:
    await ingesting.add(an_interaction(id="i1"))

    row = await only_example(ingesting)

    assert row["id"] == "i1"
    assert (row["corrections"], row["ratings"]) == ([], [])
    assert (row["negatives"], row["positives"], row["rating"]) == (0, 0, None)
    assert (row["correction_id"], row["last_feedback_at"]) == (None, None)
    assert row["tags"] == {"product": "cards"}


async def test_a_correction_is_there_in_the_list_and_flat(ingesting: Ingesting) -> None:
    message = {"role": "assistant", "content": "card_arrival"}
    await ingesting.add(
        an_interaction(id="i1"),
        a_correction("i1", id="f1", text="card_arrival", message=message, tags={"shift": "late"}),
    )

    row = await only_example(ingesting)

    assert (row["correction_id"], row["correction_text"]) == ("f1", "card_arrival")
    assert (row["correction_user"], row["correction_origin"]) == ("ada", "user")
    assert json.loads(row["correction_message"]) == message
    [correction] = row["corrections"]
    assert correction["feedback"] == "f1"
    assert correction["effective_at"] == NOON
    assert (correction["tags"], correction["choice"]) == ({"shift": "late"}, 0)


async def test_feedback_before_its_interaction_counts(ingesting: Ingesting) -> None:
    await ingesting.add(a_correction("i1"), at=NOON + HOUR)
    await ingesting.add(an_interaction(id="i1"), at=NOON + 2 * HOUR)

    assert await examples(ingesting, NOON + HOUR) == []
    assert (await only_example(ingesting))["correction_text"] == "card_arrival"


async def test_late_feedback_counts_only_from_when_it_was_stored(ingesting: Ingesting) -> None:
    await ingesting.add(an_interaction(id="i1"), at=NOON + HOUR)
    await ingesting.add(a_rating("i1", time=said(1)), at=NOON + 5 * HOUR)

    before = await only_example(ingesting, NOON + 4 * HOUR)
    after = await only_example(ingesting, NOON + 5 * HOUR)

    assert (before["negatives"], after["negatives"]) == (0, 1)
    assert after["last_feedback_at"] == NOON + 5 * HOUR


async def test_an_as_of_gives_the_same_rows_whatever_comes_later(ingesting: Ingesting) -> None:
    await ingesting.add(an_interaction(id="i1"), a_rating("i1", 1))
    sealed = await ingesting.sink.seal()
    before = await examples(ingesting, sealed)

    await ingesting.add(a_rating("i1", -1), a_correction("i1"), an_interaction())

    assert await examples(ingesting, sealed) == before


async def test_of_a_changed_mind_the_latest_counts(ingesting: Ingesting) -> None:
    await ingesting.add(
        an_interaction(id="i1"),
        a_rating("i1", 1, time=said(10)),
        a_rating("i1", -1, time=said(5)),  # said earlier, arrived later
        a_correction("i1", "first", time=said(1)),
        a_correction("i1", "second", time=said(2)),
    )

    row = await only_example(ingesting)

    assert (row["rating"], row["negatives"], row["positives"]) == (1, 0, 1)
    assert row["correction_text"] == "second"
    assert len(row["corrections"]) == 1


async def test_of_feedback_of_one_moment_the_later_position_counts(ingesting: Ingesting) -> None:
    await ingesting.add(an_interaction(id="i1"), a_rating("i1", 1), a_rating("i1", -1))

    assert (await only_example(ingesting))["rating"] == -1


async def test_a_clock_ahead_does_not_win_over_what_is_said_later(ingesting: Ingesting) -> None:
    await ingesting.add(an_interaction(id="i1"), a_rating("i1", 1, time=said(60 * 24 * 365)))
    await ingesting.add(a_rating("i1", -1, time=said(90)), at=NOON + 2 * HOUR)

    assert (await only_example(ingesting))["rating"] == -1


async def test_every_user_counts_once_and_nameless_ones_as_their_token(
    ingesting: Ingesting,
) -> None:
    await ingesting.add(
        an_interaction(id="i1"),
        a_rating("i1", -1, user="ada"),
        a_rating("i1", -1, user="ada"),
        a_rating("i1", 1, user="ben"),
    )
    await ingesting.add(
        a_rating("i1", -1, user=None), a_rating("i1", -1, user=None), sender=by("t1", "acme")
    )
    await ingesting.add(a_correction("i1", user=None, time=said(30)), sender=by("t2", "acme"))

    row = await only_example(ingesting)

    assert (row["negatives"], row["positives"]) == (2, 1)
    assert [rating["user"] for rating in row["ratings"]] == ["ada", "ben", None]
    assert row["correction_user"] == "token:t2"


async def test_other_kinds_do_not_count(ingesting: Ingesting) -> None:
    await ingesting.add(
        an_interaction(id="i1"),
        a_rating("i1", 0),
        a_rating("i1", kind="comment", value=None, text="hm", user="ben"),
        a_rating("i1", kind="metric", name="resolved", value=0, user="ben"),
    )

    row = await only_example(ingesting)

    assert (row["rating"], row["negatives"], row["positives"]) == (0, 0, 0)
    assert len(row["ratings"]) == 1


async def test_orphans_are_nobodys(ingesting: Ingesting) -> None:
    await ingesting.add(an_interaction(id="i1"), a_correction("i2"), a_rating("i3"))

    row = await only_example(ingesting)

    assert (row["corrections"], row["ratings"]) == ([], [])


async def test_feedback_of_one_tenant_does_not_reach_another(ingesting: Ingesting) -> None:
    await ingesting.add(an_interaction(id="i1", tenant="acme"))
    await ingesting.add(a_rating("i1"), sender=by("t1", "other"))
    await ingesting.add(a_correction("i1"), sender=by("t2", "acme"))

    row = await only_example(ingesting)

    assert (row["negatives"], row["correction_text"]) == (0, "card_arrival")


async def test_feedback_without_a_tenant_goes_by_the_id(ingesting: Ingesting) -> None:
    await ingesting.add(an_interaction(id="i1", tenant="acme"), a_rating("i1"))

    assert (await only_example(ingesting))["negatives"] == 1


async def test_of_two_rows_of_an_id_the_gateways_is_the_example(ingesting: Ingesting) -> None:
    await ingesting.add(an_interaction(id="i1", tenant="acme", arm="live"), sender=by("t", "acme"))
    await ingesting.add(an_interaction(id="i1", tenant="acme", arm="canary"), a_rating("i1"))

    row = await only_example(ingesting)

    assert (row["arm"], row["trusted"], row["negatives"]) == ("canary", True, 1)


async def test_only_one_alias_and_tenant_is_seen(ingesting: Ingesting) -> None:
    await ingesting.add(
        an_interaction(id="i1", model="support", tenant="acme"),
        an_interaction(id="i2", model="sales", tenant="acme"),
        an_interaction(id="i3", model="support", tenant="other"),
        a_rating("i1"),
        a_rating("i2"),
    )

    support = await examples(ingesting, only_model="support")
    acme = await examples(ingesting, only_model="support", only_tenant="acme")

    assert [row["id"] for row in support] == ["i1", "i3"]
    assert [(row["id"], row["negatives"]) for row in acme] == [("i1", 1)]


async def test_examples_export_to_parquet_with_their_types(
    ingesting: Ingesting, tmp_path: Path
) -> None:
    path = tmp_path / "it's examples.parquet"
    await ingesting.add(
        an_interaction(id="i1"), an_interaction(id="i2", model="sales"), a_correction("i1")
    )

    written = await ingesting.reads.export_examples(path, as_of=NOON + 100 * HOUR, model="support")

    assert written == 1
    assert await ingesting.reads.count_examples(as_of=NOON + 100 * HOUR, model="support") == 1
    child = Database.open(":memory:")
    here = await examples(ingesting, only_model="support")
    reader = child.read(lambda c: c.execute("FROM read_parquet($path)", {"path": str(path)}))
    columns = [(name, str(kind)) for name, kind, *_ in (await reader).description]
    there = await Ingesting(child).ask("FROM read_parquet($path)", path=str(path))
    child.close()
    own = await ingesting.database.read(
        lambda c: c.execute("FROM examples_as_of(now())").description
    )
    assert columns == [(name, str(kind)) for name, kind, *_ in own]
    assert there == here


async def test_an_example_is_dated_in_utc(ingesting: Ingesting) -> None:
    await ingesting.add(an_interaction(id="i1", time="2026-11-01T14:30:00+02:30"))

    row = await only_example(ingesting)

    assert row["time"] == datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert row["time"].utcoffset() == timedelta(0)
