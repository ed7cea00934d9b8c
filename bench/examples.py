"""`make bench-examples`: a policy selects from 10 M interactions. bench/results/examples.json.

The store holds 30 days of one alias with feedback on one interaction in nine, most within hours,
some days late. Days that are over are sealed beforehand, as the daemon does once a day (`seal_s`,
all of them). Then, five times, what a snapshot does: export of the unsealed tail (`export_s`) and
the policy's expression in the sandboxed child (`select_s`); `total_s` is the median of their sums.
The selected rows are counted against the store's own answer, and orphans are counted too.
"""

import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from adaptd.daemon.store.database.database import Database
from adaptd.daemon.store.database.opening import open_store
from adaptd.daemon.store.database.statements import split_statements
from adaptd.daemon.store.examples.files import ExampleFiles
from adaptd.daemon.store.examples.sandbox import Sandbox
from adaptd.daemon.store.ingest.event_reads import EventReads
from bench.machine import machine

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results" / "examples.json"
_SCRATCH = ROOT / "var" / "bench-examples"
_ROWS = 10_000_000
_ORPHANS = 1_000
_SPAN = timedelta(days=30)
_RUNS = 5
_WHERE = "tags['product'] = 'cards' AND time > now() - INTERVAL 30 DAY"
_SQL = split_statements((Path(__file__).parent / "examples.sql").read_text())


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def fill(path: Path, now: datetime) -> int:
    """Make the store; returns how many rows the policy must find."""
    Database.open(path).close()
    now_ms = int(now.timestamp() * 1000)
    with open_store(path, memory_limit="3GB") as store:
        store.execute("SET TimeZone = 'UTC'")
        span_ms = int(_SPAN.total_seconds() * 1000)
        given = {"now_ms": now_ms, "span_ms": span_ms, "rows": _ROWS}
        store.execute(_SQL["fill_interactions"], given)
        store.execute(_SQL["fill_feedback"], {"now_ms": now_ms})
        store.execute(_SQL["fill_orphans"], {"now_ms": now_ms, "orphans": _ORPHANS})
        found = store.execute(_SQL["count_expected"]).fetchone()
    return found[0] if found else 0


async def measure(path: Path, expected: int, now: datetime) -> dict[str, Any]:
    database = Database.open(path)
    try:
        files = ExampleFiles(database, path.parent / "examples")
        began_s = time.monotonic()
        while await files.seal("support", now=now):
            _say(f"sealed a day ({time.monotonic() - began_s:.0f} s)")
        seal_s = time.monotonic() - began_s
        runs = [await _select(files, now, expected) for _ in range(_RUNS)]
        began_s = time.monotonic()
        orphans = await EventReads(database).orphan_count()
        orphans_s = time.monotonic() - began_s
        counts = await EventReads(database).counts()
    finally:
        database.close()
    if orphans != _ORPHANS:
        raise AssertionError(f"{orphans} orphans counted, {_ORPHANS} there")
    return {
        "interactions": counts.interactions,
        "feedback": counts.feedback,
        "selected": expected,
        "total_s": round(statistics.median(sum(run) for run in runs), 2),
        "export_s": round(statistics.median(run[0] for run in runs), 2),
        "select_s": round(statistics.median(run[1] for run in runs), 2),
        "total_s_runs": [round(sum(run), 2) for run in runs],
        "seal_s": round(seal_s, 1),
        "sealed_mb": round(_size(path.parent / "examples") / 1e6),
        "orphans": orphans,
        "count_orphans_s": round(orphans_s, 2),
    }


async def _select(files: ExampleFiles, now: datetime, expected: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
        began_s = time.monotonic()
        found = await files.gather("support", as_of=now, into=Path(folder))
        exported_s = time.monotonic()
        selected = await Sandbox().select(found, _WHERE, as_of=now, judged_only=True)
        done_s = time.monotonic()
    if selected.num_rows != expected:
        raise AssertionError(f"{selected.num_rows} rows selected, {expected} expected")
    _say(f"export {exported_s - began_s:.2f} s, selection {done_s - exported_s:.2f} s")
    return exported_s - began_s, done_s - exported_s


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.parquet"))


def main() -> None:
    shutil.rmtree(_SCRATCH, ignore_errors=True)
    _SCRATCH.mkdir(parents=True)
    path, now = _SCRATCH / "store.duckdb", datetime.now(UTC)
    try:
        _say(f"filling a store with {_ROWS:,} interactions")
        expected = fill(path, now)
        _say(f"{path.stat().st_size / 2**30:.1f} GiB; sealing")
        found = asyncio.run(measure(path, expected, now))
    finally:
        shutil.rmtree(_SCRATCH, ignore_errors=True)
    found["about"] = machine()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
