"""The README's promises name tests that exist, and its links lead somewhere."""

import re

from tests.support.broker import ROOT

README = (ROOT / "README.md").read_text("utf-8")
PROMISE = re.compile(r"^\| (\d+)\. (.+) \| (.+) \|$", re.MULTILINE)
LINK = re.compile(r"\[([^\]]+)\]\(([^)#]+)(?:#[^)]*)?\)")


def test_every_invariant_is_promised_with_tests_that_exist() -> None:
    found = {int(row[1]): LINK.findall(row[3]) for row in PROMISE.finditer(README)}
    assert set(found) == set(range(1, 13))
    missing = [
        f"{path}: {name}"
        for tests in found.values()
        for name, path in tests
        if f"def {name}(" not in (ROOT / path).read_text("utf-8")
    ]
    assert missing == []
    assert all(found.values())


def test_every_link_leads_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
        for _, target in LINK.findall(page.read_text("utf-8"))
        if not target.startswith("http") and not (page.parent / target).exists()
    ]
    assert broken == []
