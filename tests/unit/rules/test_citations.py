"""What code and documents cite by number stands in the repository."""

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.broker import ROOT

CITED = re.compile(
    r"\b(?:D(?P<decision>\d{1,2})|ADR (?P<adr>\d+)|[Ii]nvariants? (?P<invariant>\d+))\b"
)
ELSEWHERE = re.compile(r"\b(?:design|research)(?: §|\.md)")
SUFFIXES = (".py", ".md", ".sql", ".toml", ".yaml")


def texts() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    names = listed.stdout.split("\n") if listed.returncode == 0 else _walk()
    for name in names:
        path = ROOT / name
        if name.endswith(SUFFIXES) and path.is_file() and not path.is_symlink():
            yield name, path.read_text("utf-8")


def _walk() -> list[str]:
    """A checkout without git: an unpacked source archive."""
    folders = ("daemon", "consumers", "serving", "tests", "docs", "policies", "bench")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.*")]
    return [path.relative_to(ROOT).as_posix() for path in found]


def headings(pattern: str, name: str) -> set[str]:
    return set(re.findall(pattern, (ROOT / name).read_text("utf-8"), re.MULTILINE))


def test_citations_resolve() -> None:
    known = {
        "decision": headings(r"^## D(\d+): ", "docs/adr/decisions.md"),
        "invariant": headings(r"^### Invariant (\d+): ", "docs/architecture.md"),
        "adr": {str(int(path.name[:4])) for path in (ROOT / "docs" / "adr").glob("[0-9]*.md")},
    }
    missing = [
        f"{name}: {match[0]}"
        for name, text in texts()
        for match in CITED.finditer(text)
        if name != "tests/unit/rules/test_citations.py"
        for kind, number in match.groupdict().items()
        if number is not None and number.lstrip("0") not in known[kind]
    ]
    assert missing == []


def test_nothing_cites_what_is_not_here() -> None:
    found = [
        f"{name}: {match[0]}"
        for name, text in texts()
        if name != "tests/unit/rules/test_citations.py"
        for match in ELSEWHERE.finditer(text)
    ]
    assert found == []


@pytest.mark.parametrize("cited", ["D9", "ADR 11", "invariant 12", "Invariants 3"])
def test_a_citation_is_seen(cited: str) -> None:
    assert CITED.search(f"as {cited} says")
