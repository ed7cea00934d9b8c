"""Edits apply without a restart; broken ones leave the last good version in force and say so."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptd.daemon.policy.book import PolicyBook
from adaptd.daemon.policy.load import Limits
from adaptd.daemon.policy.watch import PolicyService
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.lifecycle.policies import PolicyStore
from adaptd.daemon.wire.errors import PolicyError, RefusedError
from tests.support.policy_files import FULL, MINIMAL, write_golden, write_policy
from tests.support.waiting import until

BROKEN = MINIMAL.replace("base:", "bsae:")
EDITED = MINIMAL + "train: {rank: 4}\n"


class Wheres:
    """A check that refuses one text; the real one is daemon/store/where.py."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.broken = 0  # times it fails as on a full disk

    async def check(self, where: str) -> None:
        if self.broken:
            self.broken -= 1
            raise OSError(28, "No space left on device")
        self.tried.append(where)
        if "nonsense" in where:
            raise PolicyError("where", "there is no column nonsense", "Columns: id")


class Desk:
    """A policy folder, its service and its book; `restarted` is the same store in a new process."""

    def __init__(self, folder: Path, database: Database, *, grace_s: float = 0.02) -> None:
        self.folder = folder
        self.database = database
        self.wheres = Wheres()
        self.book = PolicyBook()
        self.service = PolicyService(
            folder,
            book=self.book,
            log=PolicyStore(database),
            limits=Limits(bases=frozenset({"tiny", "smollm2-135m"})),
            where_check=self.wheres,
            poll_s=0.2,
            grace_s=grace_s,
        )

    def restarted(self) -> "Desk":
        return Desk(self.folder, self.database)

    def in_force(self) -> list[tuple[str, int]]:
        return [(version.model, version.version) for version in self.book.all()]

    def problems(self) -> str:
        return "\n".join(map(str, self.book.problems()))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.service.start()
        task = asyncio.create_task(self.service.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    database = Database.open(":memory:")
    folder = tmp_path / "policies"
    folder.mkdir()
    yield Desk(folder, database)
    database.close()


async def test_an_edit_applies_without_a_restart(desk: Desk) -> None:
    path = write_policy(desk.folder)
    async with desk.running():
        assert desk.in_force() == [("support", 1)]
        path.write_text(EDITED)
        await until(lambda: desk.in_force() == [("support", 2)], within_s=10)
    current = desk.book.current("support")
    assert current is not None
    assert (current.policy.train.rank, current.yaml, current.path) == (4, EDITED, str(path))
    assert desk.book.version("support", 1).policy.train.rank == 8


async def test_a_new_file_and_a_removed_one_are_noticed(desk: Desk) -> None:
    path = write_policy(desk.folder)
    async with desk.running():
        write_policy(desk.folder, MINIMAL.replace("support", "sales"), name="sales.yml")
        await until(lambda: desk.in_force() == [("sales", 1), ("support", 1)], within_s=10)
        path.unlink()
        await until(lambda: desk.in_force() == [("sales", 1)], within_s=10)
    assert desk.problems() == ""


@pytest.mark.parametrize(("text", "version"), [(EDITED, 2), (BROKEN, 1)], ids=["edited", "broken"])
async def test_a_file_deleted_and_written_anew_a_moment_later_is_never_out_of_force(
    desk: Desk, text: str, version: int
) -> None:
    path = write_policy(desk.folder)
    desk = Desk(desk.folder, desk.database, grace_s=0.2)
    await desk.service.start()
    path.unlink()
    looking = asyncio.create_task(desk.service.refresh())
    await asyncio.sleep(0.1)  # half the grace: it waits for the file, or has not looked yet
    assert not looking.done()
    path.write_text(text)
    await looking

    assert desk.in_force() == [("support", version)]
    [stored, *_] = await PolicyStore(desk.database).all()
    assert stored.withdrawn_at is None


async def test_a_folder_that_appears_later_is_followed(desk: Desk) -> None:
    desk.folder.rmdir()
    async with desk.running():
        assert "there is no such policy folder" in desk.problems()
        write_policy(desk.folder)
        await until(lambda: desk.in_force() == [("support", 1)], within_s=10)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (BROKEN, "support.yaml:3: bsae is not a key. Write base."),
        (MINIMAL.replace("tiny", "large"), "base is large, which the settings do not know"),
        (MINIMAL + "select: {where: nonsense > 1}\n", "select.where: there is no column nonsense"),
        (MINIMAL + "curate: {redact: [email]}\n", "does not work in this version"),
        ("", "it is empty"),
    ],
)
async def test_a_broken_edit_leaves_the_last_good_version_in_force(
    desk: Desk, broken: str, said: str
) -> None:
    path = write_policy(desk.folder)
    await desk.service.start()
    path.write_text(broken)
    await desk.service.refresh()

    assert desk.in_force() == [("support", 1)]
    assert said in desk.problems()

    path.write_text(MINIMAL)
    await desk.service.refresh()
    assert (desk.in_force(), desk.problems()) == ([("support", 1)], "")


async def test_the_last_good_version_outlives_a_restart(desk: Desk) -> None:
    path = write_policy(desk.folder)
    await desk.service.start()
    for text in (EDITED, MINIMAL, BROKEN):  # back to version 1, then broken
        path.write_text(text)
        await desk.service.refresh()

    again = desk.restarted()
    await again.service.start()
    assert again.in_force() == [("support", 1)]
    assert "bsae is not a key" in again.problems()
    assert again.book.version("support", 2).policy.train.rank == 4


async def test_a_file_removed_while_the_daemon_was_down_is_out_of_force(desk: Desk) -> None:
    path = write_policy(desk.folder)
    await desk.service.start()
    path.unlink()

    again = desk.restarted()
    await again.service.start()
    assert again.in_force() == []
    assert again.book.version("support", 1).policy.model == "support"
    with pytest.raises(RefusedError):
        again.book.version("support", 2)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("others", [False, True])
async def test_a_policy_whose_file_was_removed_is_not_brought_back_by_a_broken_one(
    desk: Desk, restarted: bool, others: bool
) -> None:
    path = write_policy(desk.folder)
    if others:
        write_policy(desk.folder, MINIMAL.replace("support", "sales"), name="sales.yml")
    await desk.service.start()
    path.unlink()
    await desk.service.refresh()
    path.write_text(BROKEN)
    desk = desk.restarted() if restarted else desk
    await desk.service.start()

    assert desk.in_force() == ([("sales", 1)] if others else [])
    path.write_text(MINIMAL)
    await desk.service.refresh()
    path.write_text(BROKEN)
    again = desk.restarted()
    await again.service.start()
    assert ("support", 1) in again.in_force(), "the file is back, and this is its last good version"


@pytest.mark.parametrize("restarted", [False, True])
async def test_an_alias_that_its_file_gave_up_is_not_brought_back(
    desk: Desk, restarted: bool
) -> None:
    path = write_policy(desk.folder)
    await desk.service.start()
    path.write_text(MINIMAL.replace("support", "sales"))
    await desk.service.refresh()
    path.write_text(BROKEN)
    desk = desk.restarted() if restarted else desk
    await desk.service.start()

    assert desk.in_force() == [("sales", 1)]


async def test_a_policy_removed_while_the_daemon_was_down_is_not_brought_back(desk: Desk) -> None:
    path = write_policy(desk.folder)
    write_policy(desk.folder, MINIMAL.replace("support", "sales"), name="sales.yml")
    await desk.service.start()
    path.unlink()
    again = desk.restarted()
    await again.service.start()
    path.write_text(BROKEN)
    await again.service.refresh()

    assert again.in_force() == [("sales", 1)]


async def test_a_folder_that_is_mounted_late_loses_no_policy(desk: Desk) -> None:
    path = write_policy(desk.folder)
    await desk.service.start()
    path.unlink()
    again = desk.restarted()
    await again.service.start()
    path.write_text(BROKEN)
    await again.service.refresh()

    assert again.in_force() == [("support", 1)]


async def test_two_files_for_one_alias_are_a_problem_in_both(desk: Desk) -> None:
    write_policy(desk.folder)
    await desk.service.start()
    other = write_policy(desk.folder, EDITED, name="again.yaml")
    await desk.service.refresh()

    assert desk.in_force() == [("support", 1)]
    assert "again.yaml:2: model is support, as in" in desk.problems()
    assert "support.yaml:2: model is support, as in" in desk.problems()

    other.unlink()
    await desk.service.refresh()
    assert (desk.in_force(), desk.problems()) == ([("support", 1)], "")


async def test_a_renamed_file_is_the_same_version(desk: Desk) -> None:
    path = write_policy(desk.folder)
    await desk.service.start()
    path.rename(desk.folder / "renamed.yaml")
    await desk.service.refresh()

    current = desk.book.current("support")
    assert current is not None
    assert (current.version, Path(current.path).name) == (1, "renamed.yaml")


async def test_a_broken_golden_file_is_noticed_without_an_edit_of_the_policy(desk: Desk) -> None:
    golden = write_golden(desk.folder)
    write_policy(desk.folder, FULL)
    await desk.service.start()
    assert desk.problems() == ""
    golden.write_text("{\n")
    await desk.service.refresh()

    assert "support.jsonl:1: it is not a JSON object" in desk.problems()
    assert desk.in_force() == [("support", 1)]


async def test_an_expression_is_tried_once_for_each_text(desk: Desk) -> None:
    path = write_policy(desk.folder)
    await desk.service.start()
    path.touch()
    await desk.service.refresh()
    assert desk.wheres.tried == ["true"]


async def test_a_version_tells_where_its_keys_stand(desk: Desk) -> None:
    path = write_policy(desk.folder, MINIMAL + "select:\n  where: id > ''\n")
    await desk.service.start()
    current = desk.book.current("support")
    assert current is not None
    assert current.where("select", "where") == f"{path}:5"
    assert current.where("gate", "alpha") == f"{path}:1"


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
async def test_no_bytes_in_the_folder_stop_the_service(desk: Desk, contents: list[bytes]) -> None:
    """Invariant 9: whatever an edit writes, the last good version stays in force."""
    write_policy(desk.folder)
    await desk.service.refresh()
    for number, content in enumerate(contents):
        (desk.folder / f"edit-{number}.yaml").write_bytes(content)
    (desk.folder / "support.yaml").write_bytes(contents[0])
    await desk.service.refresh()

    assert desk.in_force() == [("support", 1)]
    assert desk.problems() != ""


async def test_an_expression_that_cannot_be_tried_now_is_tried_again(desk: Desk) -> None:
    desk.wheres.broken = 2
    write_policy(desk.folder)
    task = asyncio.create_task(desk.service.run())
    try:
        await until(lambda: desk.in_force() == [("support", 1)], within_s=10)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
