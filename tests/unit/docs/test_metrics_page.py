"""docs/metrics.md and the code say the same, both ways."""

import re
from pathlib import Path

from daemon.web.metrics import METRICS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(adaptd_\w+)` \| (.+?) \| (.+) \|$", re.MULTILINE)
NAME = re.compile(r"adaptd_\w+")


def documented() -> dict[str, tuple[tuple[str, ...], str]]:
    return {
        row[1]: (tuple(re.findall(r"`(\w+)`", row[2])), row[3])
        for row in ROW.finditer(PAGE.read_text())
    }


def test_every_metric_is_documented_with_its_labels_and_meaning() -> None:
    assert {name: documented().get(name) for name in METRICS} == METRICS


def test_every_metric_the_page_names_exists() -> None:
    named = set(NAME.findall(PAGE.read_text()))
    assert named - set(METRICS) == set()
