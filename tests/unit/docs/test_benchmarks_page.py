"""docs/benchmarks.md says what bench/results holds."""

import json
import re
from typing import Any

from tests.support.broker import ROOT

PAGE = (ROOT / "docs" / "benchmarks.md").read_text()
ROWS = re.findall(r"^\| (.+?) \| ([\d,]+) \| ([\d.]+) \| (\d+) \|", PAGE, re.MULTILINE)


def test_every_row_of_the_page_is_a_result() -> None:
    found = json.loads((ROOT / "bench" / "results" / "ingest.json").read_text())
    found.pop("about")
    spread = found.pop("partitions_64")
    results = sorted(map(figures, found.values()))

    assert sorted((int(r[1].replace(",", "")), float(r[2]), int(r[3])) for r in ROWS) == results
    assert f"{spread['commit_p50_ms']}, {spread['commit_p99_ms']} ms" in PAGE


def figures(result: dict[str, Any]) -> tuple[int, float, int]:
    return (
        round(result["events_per_s"]),
        result["cpu_s_per_million"],
        round(result["peak_rss_mb"]),
    )
