"""Invariant 9 for the folder: whatever lies where a policy or its golden file is meant."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from adaptd.daemon.policy.files import policy_paths
from adaptd.daemon.policy.load import Loaded, load_policy, named_base
from adaptd.daemon.store.database.database import Database
from adaptd.daemon.wire.errors import PolicyError
from tests.support.odd_files import ODD_FILES, open_descriptors
from tests.support.policy_files import GOLDEN_LINE, MINIMAL, write_policy
from tests.unit.policy.test_watch import EDITED, Desk

SALES = MINIMAL.replace("support", "sales")
NAMES = st.one_of(
    st.sampled_from([".", "./", "golden", "golden/", "golden/../golden", "..data", "a\0b"]),
    st.text(min_size=1, max_size=8),
    st.text(alphabet="./\\~\n\0 \udcff\ud800é", min_size=1, max_size=8),
    st.just("x" * 300),
)


def with_golden(name: str) -> str:
    quoted = "".join(f"\\U{ord(letter):08x}" for letter in name)
    return f'{MINIMAL}curate: {{holdout: {{golden: "{quoted}"}}}}\n'


def assert_told(loaded: Loaded) -> None:
    """Every problem is one line that a log, a terminal and JSON can hold."""
    assert loaded.policy is None
    assert loaded.problems
    for problem in loaded.problems:
        assert str(problem).encode().count(b"\n") == 0
        assert ".yaml:" in problem.where or ".jsonl:" in problem.where
        assert problem.problem
        assert problem.remedy


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    folder = tmp_path / "policies"
    folder.mkdir()
    return Desk(folder, Database.open(":memory:"))


@pytest.mark.parametrize("kind", ODD_FILES)
@pytest.mark.parametrize("place", ["support.yaml", "new.yml", "golden"])
async def test_an_odd_file_concerns_one_policy_and_edits_of_the_others_apply(
    desk: Desk, kind: str, place: str
) -> None:
    path = write_policy(desk.folder)
    other = write_policy(desk.folder, SALES, name="sales.yaml")
    await desk.service.start()
    (desk.folder / place).unlink(missing_ok=True)
    ODD_FILES[kind](desk.folder / place)
    if place == "golden":
        path.write_text(with_golden("golden"))
    other.write_text(EDITED.replace("support", "sales"))
    await desk.service.refresh()

    assert desk.in_force() == [("sales", 2), ("support", 1)]
    assert "support.yaml:4: curate" in desk.problems() or f"{place}:1: " in desk.problems()
    assert desk.book.failure is None, "the file is wrong, and the daemon works"

    shutil.rmtree(desk.folder)
    write_policy(desk.folder)
    write_policy(desk.folder, SALES, name="sales.yaml")
    await desk.service.refresh()
    assert (desk.in_force(), desk.problems()) == ([("sales", 1), ("support", 1)], "")
    desk.database.close()


@pytest.mark.parametrize("kind", ODD_FILES)
async def test_an_odd_file_that_appears_beside_the_policies_is_noticed(
    desk: Desk, kind: str
) -> None:
    write_policy(desk.folder)
    await desk.service.start()
    ODD_FILES[kind](desk.folder / "odd.yaml")
    await desk.service.refresh()
    assert "odd.yaml:1: " in desk.problems()
    desk.database.close()


async def test_no_try_leaves_a_file_open(desk: Desk) -> None:
    write_policy(desk.folder, with_golden("."))
    for number, make in enumerate(ODD_FILES.values()):
        make(desk.folder / f"odd-{number}.yaml")
        make(desk.folder / f"golden-{number}")
        text = with_golden(f"golden-{number}").replace("support", f"alias-{number}")
        write_policy(desk.folder, text, name=f"policy-{number}.yaml")
    await desk.service.start()
    before = open_descriptors()
    for number in range(50):
        (desk.folder / "touched").write_text(str(number))
        await desk.service.refresh()
    assert open_descriptors() == before
    assert len(desk.book.problems()) == 1 + 2 * len(ODD_FILES)
    desk.database.close()


@given(name=NAMES)
@example("\ud800.jsonl")
@example("a\0b")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_no_name_of_a_golden_file_stops_the_reader(tmp_path: Path, name: str) -> None:
    (tmp_path / "golden").mkdir(exist_ok=True)
    path = write_policy(tmp_path, with_golden(name))
    before = open_descriptors()
    assert_told(load_policy(path, folder=tmp_path))
    assert open_descriptors() == before


@given(
    name=(
        st.text(min_size=1, max_size=8) | st.binary(min_size=1, max_size=8).map(os.fsdecode)
    ).filter(lambda text: not set(text) & set("/\0")),
    kind=st.sampled_from([*ODD_FILES, "text"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_no_name_of_a_policy_file_stops_the_reader(tmp_path: Path, name: str, kind: str) -> None:
    folder = tmp_path / "policies"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / f"{name}.yaml"
    with contextlib.suppress(OSError, ValueError):  # it cannot be made, so nothing lies there
        path.write_text("no policy") if kind == "text" else ODD_FILES[kind](path)
    for found in policy_paths(folder):
        assert_told(load_policy(found, folder=folder))
        assert named_base(found, folder=folder) is None
    assert_told(load_policy(path, folder=folder))


def test_a_file_nobody_may_read_is_a_problem_until_its_rights_change(tmp_path: Path) -> None:
    path = write_policy(tmp_path)
    path.chmod(0)
    loaded = load_policy(path, folder=tmp_path)
    if os.access(path, os.R_OK):  # root reads it all the same
        assert loaded.policy is not None
    else:
        assert "permission denied" in str(loaded.problems[0])


async def test_a_change_of_rights_alone_is_noticed(desk: Desk) -> None:
    path = write_policy(desk.folder)
    await desk.service.start()
    await desk.service.refresh()
    before = desk.service._stamps
    path.chmod(0o640)
    await desk.service.refresh()
    assert desk.service._stamps != before
    desk.database.close()


def test_a_base_is_known_whatever_else_is_wrong_with_its_policy(tmp_path: Path) -> None:
    path = write_policy(tmp_path, with_golden("golden") + "rank: 8\n")
    assert load_policy(path, folder=tmp_path).policy is None
    assert named_base(path, folder=tmp_path) == "tiny"
    assert named_base(write_policy(tmp_path, "- 1\n"), folder=tmp_path) is None


# The check itself fails --------------------------------------------------------------------------


async def test_a_check_that_fails_makes_the_part_not_ready_and_is_tried_again(desk: Desk) -> None:
    path = write_policy(desk.folder)
    await desk.service.start()
    path.write_text(MINIMAL + "select: {where: id > ''}\n")
    write_policy(desk.folder, SALES, name="sales.yaml")
    desk.wheres.broken = 1  # of the first file, which is sales.yaml
    await desk.service.refresh()

    assert desk.in_force() == [("support", 2)]
    assert desk.book.failure is not None
    assert "it could not be checked (OSError)" in desk.problems()

    await desk.service.refresh()
    assert desk.in_force() == [("sales", 1), ("support", 2)]
    assert (desk.book.failure, desk.problems()) == (None, "")
    desk.database.close()


async def test_a_store_that_fails_keeps_what_is_in_force_and_says_so(desk: Desk) -> None:
    path = write_policy(desk.folder)
    await desk.service.start()
    desk.database.close()
    path.write_text(EDITED)
    await desk.service.refresh()

    assert desk.in_force() == [("support", 1)]
    assert desk.book.failure is not None
    assert str(desk.book.failure) in desk.problems()


async def test_a_folder_that_cannot_be_listed_keeps_what_is_in_force(
    desk: Desk, tmp_path: Path
) -> None:
    write_policy(desk.folder)
    await desk.service.start()
    desk.folder.rename(tmp_path / "aside")
    ODD_FILES["circle of links"](desk.folder)
    await desk.service.refresh()

    assert desk.in_force() == [("support", 1)]
    assert desk.book.failure is not None
    assert "it cannot be listed" in desk.problems()
    with pytest.raises(PolicyError):
        policy_paths(desk.folder)

    desk.folder.unlink()
    (tmp_path / "aside").rename(desk.folder)
    await desk.service.refresh()
    assert (desk.in_force(), desk.problems()) == ([("support", 1)], "")
    desk.database.close()


def test_a_golden_file_with_odd_neighbours_is_read(tmp_path: Path) -> None:
    for number, make in enumerate(ODD_FILES.values()):
        make(tmp_path / f"odd-{number}")
    (tmp_path / "golden.jsonl").write_text(GOLDEN_LINE)
    path = write_policy(tmp_path, with_golden("golden.jsonl"))
    assert load_policy(path, folder=tmp_path).problems == ()
