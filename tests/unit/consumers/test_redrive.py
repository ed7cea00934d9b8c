"""Redriven letters: decoded as before, never more trusted, never stored twice."""

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pytest

from adaptd.consumers.decoding.decode import Record, Sender, decode
from adaptd.consumers.decoding.json_events import UnreadableError
from adaptd.consumers.rereading.redrive import Redriver
from adaptd.daemon.domain.dead_letters import LetterChoice
from adaptd.daemon.domain.ingest import KAFKA, Span
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.ingest.dead_letters import DeadLetterStore
from adaptd.daemon.store.ingest.split import addresses_of
from tests.support.event_samples import a_rating, an_interaction, as_bytes
from tests.support.ingesting import EVENTS, UNSIGNED, Ingesting

NOT_YET = an_interaction(id="i9", schema="adaptd.interaction/9")


class World:
    def __init__(self, database: Database) -> None:
        self.ingesting = Ingesting(database)
        self.letters = DeadLetterStore(database, clock=self.ingesting.clock)
        self.redriver = self.permitting("user")

    def permitting(self, *sources: str) -> Redriver:
        return Redriver(
            self.ingesting.sink,
            self.letters,
            kinds={"events": "interaction"},
            unsigned_sources=frozenset(sources),
        )

    async def redrive(self, **choice: object) -> list[tuple[str, str | None]]:
        results, cursor = await self.redriver.redrive(LetterChoice(**choice))  # pyright: ignore
        assert cursor is None
        return [(result.result, result.reason) for result in results]

    async def release(self, before: bytes, after: bytes) -> None:
        """Change the letters' bytes, as if a newer release could read them."""
        await self.ingesting.database.write(
            lambda cursor: cursor.execute(
                "UPDATE dead_letters SET bytes = encode(replace(decode(bytes), $before, $after))",
                {"before": before.decode(), "after": after.decode()},
            )
        )


@pytest.fixture
def world() -> Iterator[World]:
    database = Database.open(":memory:")
    yield World(database)
    database.close()


async def test_a_letter_that_can_be_read_now_is_stored_once(world: World) -> None:
    await world.ingesting.add(as_bytes(NOT_YET), b"broken")
    await world.release(b"interaction/9", b"interaction/1")

    first = await world.redrive()
    again = await world.redrive()

    assert first == [("stored", None), ("dead", "not_json")]
    assert again == [("dead", "not_json")]
    [row] = await world.ingesting.ask("SELECT id, source, trusted FROM interactions")
    assert row == {"id": "i9", "source": "redrive", "trusted": True}
    assert len(await world.letters.list()) == 2


async def test_a_letter_dead_again_stays_with_the_new_reason(world: World) -> None:
    await world.ingesting.add(as_bytes(NOT_YET))
    await world.release(b'"adaptd.interaction/9"', b"7")

    assert await world.redrive() == [("dead", "unknown_schema")]

    [letter] = await world.letters.list()
    assert (letter.reason, letter.redriven_at) == ("unknown_schema", None)
    assert [row.letters for row in await world.letters.by_reason()] == [1, 0]


async def test_what_was_stored_meanwhile_is_a_duplicate(world: World) -> None:
    await world.ingesting.add(as_bytes(NOT_YET))
    await world.ingesting.add(an_interaction(id="i9"))
    await world.release(b"interaction/9", b"interaction/1")

    assert await world.redrive() == [("duplicate", None)]


async def test_nobody_becomes_trusted_by_being_redriven(world: World) -> None:
    mallory = Sender(False, "t1", frozenset({"user"}), stamps_tenant=True, tenant="mallory")
    claims = an_interaction(id="i9", schema="adaptd.interaction/9", tenant="acme")
    await world.ingesting.add(as_bytes(claims), sender=mallory)
    rating = a_rating("i1", source="reviewer")
    await world.ingesting.add(as_bytes(rating), sender=mallory)
    await world.release(b"interaction/9", b"interaction/1")
    world.redriver = world.permitting("user", "reviewer")

    await world.redrive()

    [row] = await world.ingesting.ask("SELECT tenant, trusted FROM interactions")
    assert row == {"tenant": "mallory", "trusted": False}
    [letter] = await world.letters.list(reason="source_not_permitted")
    assert letter.redriven_at is None


async def test_unsigned_records_say_what_the_settings_permit_now(world: World) -> None:
    rating = as_bytes(a_rating("i1", source="agent"))
    await world.ingesting.add(rating, sender=UNSIGNED)
    assert await world.redrive() == [("dead", "source_not_permitted")]

    world.redriver = world.permitting("user", "agent")

    assert await world.redrive(reason="source_not_permitted") == [("stored", None)]


async def test_a_wrong_signature_cannot_be_checked_again_here(world: World) -> None:
    await world.ingesting.pin()
    wrong = UnreadableError("bad_signature", "not ours")
    record = Record(as_bytes(an_interaction()), *EVENTS, 0, wrong, None)
    await world.ingesting.sink.write(decode([record], source=KAFKA, spans=[Span(EVENTS, 0, 1)]))

    results, _ = await world.redriver.redrive(LetterChoice())

    assert [result.result for result in results] == ["skipped"]
    assert "adaptd replay" in str(results[0].detail)


async def test_of_a_batch_the_good_events_are_stored(world: World) -> None:
    batch = b'{"batch": 9}'
    await world.ingesting.add(batch)
    good = as_bytes(an_interaction(id="i1")).decode()
    await world.release(b"9}", f'[{good}, {{"id": 1}}]}}'.encode())

    assert await world.redrive() == [("dead", "invalid")]
    assert await world.ingesting.reads.has("i1")
    assert await world.redrive() == [("dead", "invalid")]
    assert (await world.ingesting.reads.counts()).interactions == 1


async def test_what_the_store_refuses_leaves_one_letter(world: World) -> None:
    """The sink makes its own letter of such a row. It is removed, and the first letter says why."""
    await world.ingesting.add(as_bytes(NOT_YET))
    await world.release(b"interaction/9", b"interaction/1")
    sink = _Breaking(world.ingesting.sink)
    redriver = Redriver(sink, world.letters, kinds={}, unsigned_sources=frozenset())  # pyright: ignore

    [result], _ = await redriver.redrive(LetterChoice())

    assert (result.result, result.reason) == ("dead", "unstorable")
    assert [letter.reason for letter in await world.letters.list()] == ["unstorable"]
    assert {row.reason: row.letters for row in await world.letters.by_reason()} == {
        "unknown_version": 1,
        "unstorable": 0,
    }


async def test_the_letter_of_an_erased_person_loses_its_bytes(world: World) -> None:
    """The sink bars the event and makes a blank letter of it. Only the first letter stays."""
    await world.ingesting.add(as_bytes(NOT_YET))
    await world.release(b"interaction/9", b"interaction/1")
    sink = _Barring(world.ingesting.sink)
    redriver = Redriver(sink, world.letters, kinds={}, unsigned_sources=frozenset())  # pyright: ignore

    [result], _ = await redriver.redrive(LetterChoice())

    assert (result.result, result.reason) == ("dead", "erased")
    [letter] = await world.letters.list()
    assert (letter.reason, letter.source, letter.size_bytes) == ("erased", "kafka", 0)
    assert {row.reason: row.letters for row in await world.letters.by_reason()}["erased"] == 0


class _Barring:
    """A sink for which everybody was erased."""

    def __init__(self, sink: object) -> None:
        self._sink = sink

    def __getattr__(self, name: str) -> object:
        return getattr(self._sink, name)

    async def write(self, decoded: object) -> object:
        rows = decoded.interactions  # pyright: ignore
        blank = [
            {
                "id": f"redrive//0/{row['position']}/{row['batch_index']}",
                "reason": "erased",
                "detail": "it is of a person who was erased",
            }
            | {name: row[name] for name in ("source", "topic", "partition", "position")}
            | {"batch_index": row["batch_index"]}
            for row in rows.to_pylist()
        ]
        letters = pa.Table.from_pylist(blank, schema=decoded.dead_letters.schema)  # pyright: ignore
        kept = replace(decoded, interactions=rows.slice(0, 0), dead_letters=letters)  # pyright: ignore
        written = await self._sink.write(kept)  # pyright: ignore
        return replace(written, barred=addresses_of(rows))


class _Breaking:
    """A sink that damages what it gets: a JSON column that the store takes for malformed."""

    def __init__(self, sink: object) -> None:
        self._sink = sink

    def __getattr__(self, name: str) -> object:
        return getattr(self._sink, name)

    async def write(self, decoded: object) -> object:
        rows = decoded.interactions  # pyright: ignore
        column = rows.schema.get_field_index("request")
        broken = rows.set_column(column, "request", pa.array(["{no json"] * rows.num_rows))
        return await self._sink.write(replace(decoded, interactions=broken))  # pyright: ignore
