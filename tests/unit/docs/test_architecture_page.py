"""docs/architecture.md names files and functions that exist."""

import re

from tests.support.broker import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
OWNER = re.compile(r"^\| .+ \| (.*`[^|]+) \|$", re.MULTILINE)
PLACE = re.compile(r"`((?:daemon|consumers|serving)(?:/\w+)*(?:\.py)?)`")
NAME = re.compile(r"`([A-Za-z_]+)`")


def test_every_place_exists() -> None:
    places = set(PLACE.findall(PAGE))
    assert len(places) > 40
    assert [place for place in sorted(places) if not (ROOT / place).exists()] == []


def test_files_that_a_step_names_beside_a_folder_exist() -> None:
    """A step names its first file in full and its neighbours by their names."""
    missing: list[str] = []
    for line in PAGE.splitlines():
        folders = {(ROOT / place).parent for place in PLACE.findall(line) if place.endswith(".py")}
        missing += [
            f"{name}: {line[:60]}"
            for name in re.findall(r"`(\w+\.py)`", line)
            if folders and not any((folder / name).exists() for folder in folders)
        ]
    assert missing == []


def test_every_owner_of_a_rule_is_defined_where_the_page_says() -> None:
    section = PAGE.partition("## Every rule has one owner")[2].partition("\n## ")[0]
    checked = 0
    for cell in OWNER.findall(section):
        files = [place for place in PLACE.findall(cell) if place.endswith(".py")]
        texts = "".join((ROOT / place).read_text("utf-8") for place in files)
        for name in NAME.findall(cell.partition(" in `")[0]):
            if name not in ("daemon",) and files:
                assert re.search(rf"^(?:def|class|async def) {name}\b", texts, re.MULTILINE), name
                checked += 1
    assert checked > 15
