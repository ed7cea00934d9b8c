"""Rows and offsets in one transaction: fence, chain, pin, and duplicates."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from adaptd.consumers.decoding.decode import SIGNED, Sender
from adaptd.daemon.domain.ingest import KAFKA, Address, LogRange, Partition, Span
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.database.statements import statements
from adaptd.daemon.store.ingest.sink import EventStore
from adaptd.daemon.wire.errors import ChainError, HaltError, StoreError
from tests.support.event_samples import a_correction, a_rating, an_interaction
from tests.support.ingesting import EVENTS, UNSIGNED, Ingesting, chunk, no_events

NOW = datetime(2026, 11, 1, 13, tzinfo=UTC)


@pytest.fixture
def ingesting() -> Iterator[Ingesting]:
    database = Database.open(":memory:")
    yield Ingesting(database, NOW)
    database.close()


async def next_offset(ingesting: Ingesting, partition: Partition = EVENTS) -> int:
    return (await ingesting.sink.offsets(KAFKA))[partition].next_offset


async def test_rows_and_the_offset_after_them_are_stored(ingesting: Ingesting) -> None:
    written = await ingesting.add(an_interaction(id="i1"), a_rating("i1"), b"broken")

    assert (written.interactions, written.feedback, written.dead_letters) == (1, 1, 1)
    assert await next_offset(ingesting) == 3
    counts = await ingesting.reads.counts()
    assert (counts.interactions, counts.feedback, counts.dead_letters) == (1, 1, 1)
    assert [await ingesting.reads.has(name) for name in ("i1", "i2")] == [True, False]


async def test_a_redelivered_chunk_is_fenced_off(ingesting: Ingesting) -> None:
    events = [an_interaction(), a_rating("i1"), b"broken"]
    await ingesting.add(*events)

    assert (await ingesting.sink.write(chunk(events, start=0))).fenced == 3
    assert (await ingesting.reads.counts()).dead_letters == 1
    assert await next_offset(ingesting) == 3


async def test_of_an_overlapping_chunk_only_the_new_part_is_stored(ingesting: Ingesting) -> None:
    events = [an_interaction(id=f"e{number}") for number in range(5)]
    await ingesting.add(*events[:3])

    written = await ingesting.sink.write(chunk(events[1:], start=1))

    assert (written.fenced, written.interactions, written.duplicates) == (2, 2, frozenset())
    assert await next_offset(ingesting) == 5


async def test_a_chunk_after_a_hole_is_refused_whole(ingesting: Ingesting) -> None:
    await ingesting.add(an_interaction())

    with pytest.raises(ChainError, match="starts at 2"):
        await ingesting.sink.write(chunk([an_interaction()], start=2))

    assert (await ingesting.reads.counts()).interactions == 1
    assert await next_offset(ingesting) == 1


async def test_gaps_within_the_log_are_no_hole(ingesting: Ingesting) -> None:
    """Compaction and transaction markers leave offsets that no record has."""
    await ingesting.add(an_interaction())

    await ingesting.sink.write(chunk([an_interaction()], start=7, begin=1))

    assert await next_offset(ingesting) == 8


async def test_several_chunks_of_a_partition_chain_within_one_write(ingesting: Ingesting) -> None:
    await ingesting.pin()

    await ingesting.sink.write(no_events(Span(EVENTS, 0, 3), Span(EVENTS, 3, 9)))

    assert await next_offset(ingesting) == 9
    with pytest.raises(ChainError):
        await ingesting.sink.write(no_events(Span(EVENTS, 9, 10), Span(EVENTS, 11, 12)))


async def test_a_partition_must_be_pinned_before_its_first_chunk(ingesting: Ingesting) -> None:
    with pytest.raises(HaltError, match="start was stored"):
        await ingesting.sink.write(chunk([an_interaction()], start=0))

    assert (await ingesting.reads.counts()).interactions == 0


async def test_a_pin_never_moves_an_offset(ingesting: Ingesting) -> None:
    await ingesting.pin(start=5)
    await ingesting.pin(start=0)

    stored = (await ingesting.sink.offsets(KAFKA))[EVENTS]

    assert (stored.next_offset, stored.cluster_id, stored.topic_id) == (5, "c", "topic-id")


async def test_a_pin_fills_in_ids_that_were_not_known_and_changes_none(
    ingesting: Ingesting,
) -> None:
    for topic_id, cluster_id in ((None, None), ("a", None), (None, "c"), ("b", "d")):
        await ingesting.sink.pin(KAFKA, {EVENTS: LogRange(topic_id, 3, 3, cluster_id)})

    stored = (await ingesting.sink.offsets(KAFKA))[EVENTS]

    assert (stored.next_offset, stored.cluster_id, stored.topic_id) == (3, "c", "a")


async def test_partitions_advance_apart(ingesting: Ingesting) -> None:
    other = Partition("events", 1)
    await ingesting.pin(other)
    await ingesting.add(an_interaction(), an_interaction())

    await ingesting.sink.write(chunk([an_interaction()], start=0, partition=other))

    assert (await next_offset(ingesting), await next_offset(ingesting, other)) == (2, 1)


async def test_a_resent_event_is_stored_once_and_counted(ingesting: Ingesting) -> None:
    event, rating = an_interaction(id="i1"), a_rating("i1", id="f1")

    first = await ingesting.add(event, event, rating)
    again = await ingesting.add(rating, event)

    assert (first.interactions, first.duplicates) == (1, {Address("events", 0, 1, 0)})
    assert again.duplicates == {Address("events", 0, 3, 0), Address("events", 0, 4, 0)}
    counts = await ingesting.reads.counts()
    assert (counts.interactions, counts.feedback, counts.duplicates) == (1, 1, 3)


async def test_the_first_of_two_copies_wins(ingesting: Ingesting) -> None:
    await ingesting.add(
        an_interaction(id="i1", status="ok"), an_interaction(id="i1", status="error")
    )

    assert await ingesting.ask("SELECT status FROM interactions") == [{"status": "ok"}]


async def test_a_duplicate_within_the_window_is_dropped_and_one_beyond_it_is_not(
    ingesting: Ingesting,
) -> None:
    await ingesting.add(an_interaction(id="i1"), at=NOW)

    within = await ingesting.add(an_interaction(id="i1"), at=NOW + timedelta(hours=24))
    beyond = await ingesting.add(an_interaction(id="i1"), at=NOW + timedelta(hours=24, seconds=1))

    assert (within.interactions, beyond.interactions) == (0, 1)


async def test_a_replay_is_compared_with_everything_ever_stored(ingesting: Ingesting) -> None:
    """The window by ingestion time says nothing about events that are read again years later."""
    await ingesting.add(an_interaction(id="i1"), a_rating("i1", id="f1"), b"broken", at=NOW)
    ingesting.clock.now = NOW + timedelta(days=900)
    await ingesting.sink.pin("replay:r", {EVENTS: LogRange("t", 0, 0)})
    events = [an_interaction(id="i1"), a_rating("i1", id="f1"), b"broken", an_interaction(id="i2")]

    again = replace(chunk([*events, events[-1]], start=0), source="replay:r")
    written = await ingesting.sink.write(again)

    assert (written.interactions, written.feedback, written.dead_letters) == (1, 0, 0)
    assert written.duplicates == {Address("events", 0, number, 0) for number in (0, 1, 4)}
    assert await next_offset(ingesting) == 3, "live offsets stay where they are"
    totals = await ingesting.ask("SELECT * FROM dead_letter_totals")
    assert totals == [{"reason": "not_json", "letters": 1}]


async def test_an_event_nobody_vouches_for_is_a_copy_of_the_gateways_own(
    ingesting: Ingesting,
) -> None:
    await ingesting.add(an_interaction(id="i1"))
    await ingesting.sink.pin("import:f", {EVENTS: LogRange(None, 0, 0)})

    own = chunk([an_interaction(id="i1")], start=0, sender=UNSIGNED)
    written = await ingesting.sink.write(replace(own, source="import:f"))

    assert (written.interactions, len(written.duplicates)) == (0, 1)


async def test_nobody_takes_an_id_of_somebody_else(ingesting: Ingesting) -> None:
    """Else a client could send an event with the id of an answer before its gateway does."""
    mallory = Sender(False, "t1", frozenset({"user"}), stamps_tenant=True, tenant="mallory")
    await ingesting.add(an_interaction(id="i1"), a_rating("i1", id="f1"), sender=mallory)

    written = await ingesting.add(
        an_interaction(id="i1", tenant="acme"), a_rating("i1", id="f1"), a_rating("i2", id="f1")
    )

    assert not written.duplicates
    tenants = await ingesting.ask("SELECT tenant, trusted FROM interactions ORDER BY tenant")
    assert tenants == [{"tenant": "acme", "trusted": True}, {"tenant": "mallory", "trusted": False}]


async def test_a_clock_ahead_does_not_reach_into_the_future(ingesting: Ingesting) -> None:
    next_year = (NOW + timedelta(days=365)).isoformat()
    last_year = (NOW - timedelta(days=365)).isoformat()

    await ingesting.add(
        a_rating("i1", time=next_year), a_rating("i1", time=last_year, id="early"), at=NOW
    )

    found = await ingesting.ask("SELECT effective_at FROM feedback ORDER BY position")
    assert [row["effective_at"] for row in found] == [NOW, NOW - timedelta(days=365)]


async def test_what_is_stored_after_a_seal_is_later_even_when_the_clock_steps_back(
    ingesting: Ingesting,
) -> None:
    ingesting.clock.now = NOW
    sealed = await ingesting.sink.seal()

    await ingesting.add(an_interaction(), at=NOW - timedelta(hours=1))

    assert sealed == NOW
    [row] = await ingesting.ask("SELECT ingested_at FROM interactions")
    assert row["ingested_at"] > sealed


async def test_a_new_process_goes_on_after_the_times_stored(ingesting: Ingesting) -> None:
    await ingesting.add(an_interaction(), at=NOW)
    restarted = EventStore(
        ingesting.database,
        dedupe_window=timedelta(days=1),
        clock=lambda: NOW - timedelta(hours=1),
    )

    assert await restarted.seal() == NOW


async def test_a_row_the_store_refuses_is_buried_and_the_rest_stored(ingesting: Ingesting) -> None:
    await ingesting.pin()
    decoded = chunk([an_interaction(id="good"), an_interaction(id="bad"), a_rating("i")], start=0)
    column = decoded.interactions.schema.get_field_index("request")
    broken = decoded.interactions.set_column(column, "request", pa.array(["{}", "{no json"]))

    written = await ingesting.sink.write(replace(decoded, interactions=broken))

    assert (written.interactions, written.feedback, written.dead_letters) == (1, 1, 1)
    assert written.unstorable == {Address("events", 0, 1, 0)}
    [letter] = await ingesting.ask("SELECT * FROM dead_letters")
    assert (letter["reason"], letter["position"]) == ("unstorable", 1)
    assert msgspec.json.decode(letter["bytes"])["id"] == "bad"
    assert await next_offset(ingesting) == 3


async def test_where_the_store_fails_nothing_is_stored_and_it_can_be_repeated(
    ingesting: Ingesting,
) -> None:
    await ingesting.add(an_interaction())
    await ingesting.database.write(lambda c: c.execute("ALTER TABLE feedback RENAME TO hidden"))
    decoded = chunk([an_interaction(), a_rating("i1")], start=1)

    with pytest.raises(StoreError):
        await ingesting.sink.write(decoded)
    await ingesting.database.write(lambda c: c.execute("ALTER TABLE hidden RENAME TO feedback"))

    assert (await ingesting.reads.counts()).interactions == 1
    assert await next_offset(ingesting) == 1
    written = await ingesting.sink.write(decoded)
    assert (written.interactions, written.feedback) == (1, 1)


async def test_resync_jumps_over_what_is_gone_and_keeps_the_gap_on_record(
    ingesting: Ingesting,
) -> None:
    await ingesting.add(an_interaction(), an_interaction())
    kept, moved, gone = (Partition("events", number) for number in (0, 1, 2))
    await ingesting.pin(moved, 5)
    await ingesting.pin(gone, 5)

    await ingesting.sink.resync(
        KAFKA,
        {
            kept: LogRange("topic-id", 0, 10),
            moved: LogRange("topic-id", 8, 10),
            Partition("events", 3): LogRange("topic-id", 1, 10),
        },
        actor="ada",
        reason="old data, not needed",
        evidence={"lost": 3},
    )

    stored = await ingesting.sink.offsets(KAFKA)
    assert {at.number: offset.next_offset for at, offset in stored.items()} == {0: 2, 1: 8, 3: 1}
    [record] = await ingesting.ask("SELECT * FROM transitions WHERE subject_kind = 'ingest'")
    assert (record["actor"], record["reason"]) == ("ada", "old data, not needed")
    assert msgspec.json.decode(record["evidence"]) == {"lost": 3}


async def test_resync_to_a_topic_made_anew_starts_at_its_beginning(ingesting: Ingesting) -> None:
    await ingesting.add(*[an_interaction() for _ in range(4)])

    await ingesting.sink.resync(
        KAFKA,
        {EVENTS: LogRange("another-id", 0, 100)},
        actor="ada",
        reason="made anew",
        evidence=None,
    )

    stored = (await ingesting.sink.offsets(KAFKA))[EVENTS]
    assert (stored.next_offset, stored.topic_id) == (0, "another-id")


async def test_resync_to_another_cluster_starts_at_its_beginning(ingesting: Ingesting) -> None:
    await ingesting.add(*[an_interaction() for _ in range(4)])

    await ingesting.sink.resync(
        KAFKA,
        {EVENTS: LogRange("topic-id", 1, 100, "another")},
        actor="ada",
        reason="moved",
        evidence=None,
    )

    stored = (await ingesting.sink.offsets(KAFKA))[EVENTS]
    assert (stored.next_offset, stored.cluster_id) == (1, "another")


async def test_resync_of_a_log_that_became_shorter_goes_on_at_its_end(
    ingesting: Ingesting,
) -> None:
    await ingesting.add(*[an_interaction() for _ in range(4)])

    await ingesting.sink.resync(
        KAFKA,
        {EVENTS: LogRange("topic-id", 0, 3)},
        actor="ada",
        reason="an unclean election",
        evidence=None,
    )

    assert (await ingesting.sink.offsets(KAFKA))[EVENTS].next_offset == 3


async def test_feedback_waits_for_its_interaction(ingesting: Ingesting) -> None:
    await ingesting.add(a_rating("i2", id="f1"), a_correction("i1", id="f2"), sender=UNSIGNED)
    await ingesting.add(an_interaction(id="i1"))

    assert await ingesting.reads.orphan_count() == 1
    [orphan] = await ingesting.reads.orphans()
    assert (orphan.id, orphan.interaction) == ("f1", "i2")


async def test_first_and_last_times_are_known(ingesting: Ingesting) -> None:
    early, late = NOW - timedelta(hours=2), NOW - timedelta(hours=1)
    await ingesting.add(
        an_interaction(time=late.isoformat()), an_interaction(time=early.isoformat()), at=NOW
    )

    times = await ingesting.reads.times()

    assert (times["interactions"].first_at, times["interactions"].last_at) == (early, late)
    assert times["interactions"].last_ingested_at == NOW
    assert times["feedback"].first_at is None


def test_every_statement_prepares(ingesting: Ingesting) -> None:
    decoded = chunk([an_interaction(), a_rating("i1"), b"x"], start=0)
    tables = {"interactions": decoded.interactions, "feedback": decoded.feedback}

    times = pa.nulls(1, pa.timestamp("us", tz="UTC"))

    def work(cursor: Any) -> None:
        cursor.register("letter_keys", decoded.dead_letters.append_column("received_at", times))
        for file in ("events", "copies", "offsets", "dead_letters", "halts", "replays", "examples"):
            for name, statement in statements(file).items():
                table = tables.get(name.split("_")[-1], decoded.dead_letters)
                for view in ("chunk", "chunk_rows"):
                    row = pa.array(range(table.num_rows), pa.int64())
                    cursor.register(view, table.append_column("row", row))
                cursor.execute(f"PREPARE {name} AS {statement}")

    ingesting.database.write_now(work)


async def test_a_store_reopened_after_a_crash_knows_how_far_it_was(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    database = Database.open(path)
    ingesting = Ingesting(database, NOW)
    await ingesting.add(an_interaction(id="i1"), sender=SIGNED)
    database.close()

    again = Ingesting(Database.open(path), NOW)

    assert await next_offset(again) == 1
    assert await again.reads.has("i1")
    again.database.close()
