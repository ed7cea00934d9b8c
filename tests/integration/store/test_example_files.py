"""Sealed examples and the tail are together what the store itself would say, as of any time."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from adaptd.consumers.decoding.decode import SIGNED
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.examples.files import ExampleFiles, unseal
from adaptd.daemon.store.examples.sandbox import Examples, Sandbox
from tests.support.event_samples import NOON, a_correction, a_rating, an_interaction
from tests.support.ingesting import UNSIGNED, Ingesting

DAY = timedelta(days=1)


@pytest.fixture
async def ingesting() -> AsyncIterator[Ingesting]:
    database = Database.open(":memory:")
    yield Ingesting(database, NOON)
    database.close()


@pytest.fixture
def files(ingesting: Ingesting, tmp_path: Path) -> ExampleFiles:
    return ExampleFiles(ingesting.database, tmp_path / "examples")


async def gathered(files: ExampleFiles, folder: Path, as_of: datetime) -> list[dict[str, Any]]:
    """What a child would see."""
    found = await files.gather("support", as_of=as_of, into=_made(folder))
    return _together(found)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _together(found: Examples) -> list[dict[str, Any]]:
    assert found.touched is not None
    touched = set(pq.read_table(found.touched)["id"].to_pylist())
    rows = [row for path in found.sealed for row in pq.read_table(path).to_pylist()]
    rows = [row for row in rows if row["id"] not in touched]
    return _sorted(rows + pq.read_table(found.tail).to_pylist())


def _sorted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["time"], row["id"], row["tenant"] or ""))


async def told_by_the_store(ingesting: Ingesting, tmp: Path, as_of: datetime) -> Any:
    await ingesting.reads.export_examples(tmp, as_of=as_of, model="support")
    rows = pq.read_table(tmp).to_pylist()
    return _sorted([row for row in rows if row["corrections"] or row["ratings"]])


async def test_sealed_and_tail_agree_with_the_store_as_of_any_time(
    ingesting: Ingesting, files: ExampleFiles, tmp_path: Path
) -> None:
    chance = random.Random(11)
    ids = [f"i{number}" for number in range(30)]
    checked = 0
    for hour in range(0, 120, 5):
        at = NOON + timedelta(hours=hour)
        for _ in range(6):
            await ingesting.add(
                _any_event(chance, ids), sender=chance.choice([UNSIGNED, SIGNED]), at=at
            )
        if hour % 20 == 0:
            while await files.seal("support", now=at):
                pass
        as_of = at - timedelta(hours=chance.choice([0, 0, 30]))
        expected = await told_by_the_store(ingesting, tmp_path / "all.parquet", as_of)
        assert await gathered(files, tmp_path / f"gather-{hour}", as_of) == expected
        checked += len(expected)
    assert checked > 100


async def test_late_feedback_supersedes_a_sealed_row_and_is_sealed_with_its_day(
    ingesting: Ingesting, files: ExampleFiles, tmp_path: Path
) -> None:
    await ingesting.add(an_interaction(id="i1"), a_rating("i1", value=-1), at=NOON)
    assert await files.seal("support", now=NOON + DAY)
    await ingesting.add(a_rating("i1", value=1), at=NOON + DAY)

    [row] = await gathered(files, tmp_path / "unsealed", NOON + DAY)
    assert row["rating"] == 1
    assert await files.seal("support", now=NOON + 2 * DAY)
    [row] = await gathered(files, tmp_path / "sealed", NOON + 2 * DAY)
    assert row["rating"] == 1
    assert len(list((tmp_path / "examples" / "support").iterdir())) == 1


async def test_a_day_is_sealed_once_it_is_over_and_only_then(
    ingesting: Ingesting, files: ExampleFiles
) -> None:
    await ingesting.add(an_interaction(id="i1"), a_rating("i1"), at=NOON)

    assert not await files.seal("support", now=NOON + timedelta(hours=12))
    assert await files.seal("support", now=NOON + timedelta(hours=13))
    assert not await files.seal("support", now=NOON + timedelta(hours=13))
    assert not await files.seal("nobody", now=NOON + DAY)


async def test_what_is_forgotten_leaves_no_file_and_is_read_from_the_store(
    ingesting: Ingesting, files: ExampleFiles, tmp_path: Path
) -> None:
    await ingesting.add(an_interaction(id="i1"), a_rating("i1"), at=NOON)
    await files.seal("support", now=NOON + DAY)

    await files.forget()

    assert not list((tmp_path / "examples").glob("*/*"))
    assert [row["id"] for row in await gathered(files, tmp_path / "g", NOON + DAY)] == ["i1"]
    assert await files.seal("support", now=NOON + DAY)


async def test_a_seal_begun_before_events_were_removed_is_not_put_in_force(
    ingesting: Ingesting, files: ExampleFiles, tmp_path: Path
) -> None:
    await ingesting.add(an_interaction(id="i1"), a_rating("i1"), at=NOON)

    sealing = asyncio.create_task(files.seal("support", now=NOON + DAY))
    await ingesting.database.write(unseal)
    await sealing

    [named] = await ingesting.ask("SELECT count(*) AS files FROM example_files")
    assert len(_parquet(tmp_path)) == named["files"]


async def test_a_lost_file_and_leftovers_of_a_kill_do_no_harm(
    ingesting: Ingesting, files: ExampleFiles, tmp_path: Path
) -> None:
    await ingesting.add(an_interaction(id="i1"), a_rating("i1"), at=NOON)
    await files.seal("support", now=NOON + DAY)
    home = tmp_path / "examples" / "support"
    [sealed] = home.iterdir()
    (home / "sealing-1").mkdir()
    (home / "2026-11-01-leftover.parquet").touch()

    await files.sweep()
    assert list(home.iterdir()) == [sealed]
    sealed.unlink()

    assert [row["id"] for row in await gathered(files, tmp_path / "g", NOON + DAY)] == ["i1"]
    assert await files.seal("support", now=NOON + DAY)


async def test_an_alias_is_no_path(
    ingesting: Ingesting, files: ExampleFiles, tmp_path: Path
) -> None:
    name = "../../elsewhere"
    await ingesting.add(an_interaction(id="i1", model=name), a_rating("i1"), at=NOON)

    assert await files.seal(name, now=NOON + DAY)

    assert [path.parent.parent for path in _parquet(tmp_path)] == [tmp_path / "examples"]


async def test_a_policy_selects_from_sealed_rows_and_the_tail(
    ingesting: Ingesting, files: ExampleFiles, tmp_path: Path
) -> None:
    await ingesting.add(
        *(an_interaction(id=f"i{number}", tags={"product": "cards"}) for number in range(4)),
        *(a_correction(f"i{number}") for number in (0, 1, 3)),
        at=NOON,
    )
    await files.seal("support", now=NOON + DAY)
    await ingesting.add(a_rating("i2", value=1), a_rating("i0", value=1), at=NOON + DAY)

    found = await files.gather("support", as_of=NOON + DAY, into=tmp_path)
    where = "tags['product'] = 'cards' AND id <> 'i3'"
    selected = await Sandbox(memory_mb=256).select(found, where, as_of=NOON + DAY, judged_only=True)

    assert selected["id"].to_pylist() == ["i0", "i1", "i2"]
    assert selected["rating"].to_pylist() == [1, None, 1]


def _parquet(folder: Path) -> list[Path]:
    return list(folder.rglob("*.parquet"))


def _any_event(chance: random.Random, ids: list[str]) -> dict[str, Any]:
    of, user = chance.choice(ids), chance.choice(["ada", "bob", None])
    model = chance.choice(["support", "support", "sales"])
    tenant = chance.choice([None, "acme", "other"])
    return chance.choice(
        [
            an_interaction(id=of, model=model, tenant=tenant),
            an_interaction(id=of, tenant=tenant),
            a_rating(of, value=chance.choice([-1, 1]), user=user, tenant=tenant),
            a_correction(of, text=f"text {chance.random()}", user=user),
        ]
    )
