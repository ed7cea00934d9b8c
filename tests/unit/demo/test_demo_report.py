"""The demo's report: what it counts, and that it does not call a broken promise a success."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adaptd.daemon.demo.golden import golden_file
from adaptd.daemon.demo.report import FIGURES, Sent, cell, from_store, misses, write
from adaptd.daemon.store.database.database import Database
from tests.support.broker import ROOT

KEPT: dict[str, Any] = {
    "events_lost": 0,
    "events_duplicated": 0,
    "requests_failed": 0,
    "exact_match_before": {"value": 0.0},
    "exact_match_after": {"value": 0.8},
    "poisoned_rows_trained": 40,
    "bad_adapter_requests": 100,
    "rollback_decision_to_last_bad_request_s": 0.2,
}


def test_figures_that_keep_every_promise_miss_nothing() -> None:
    assert misses(KEPT) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("events_lost", 1, "lost"),
        ("events_duplicated", 1, "twice"),
        ("requests_failed", 1, "failed"),
        ("exact_match_before", {"value": 0.3}, "base model"),
        ("exact_match_after", {"value": 0.69}, "last adapter"),
        ("poisoned_rows_trained", 0, "poisoned"),
        ("bad_adapter_requests", 0, "bad adapter"),
        ("rollback_decision_to_last_bad_request_s", 1.0, "after its rollback"),
    ],
)
def test_each_broken_promise_is_named(name: str, value: object, words: str) -> None:
    (miss,) = misses(KEPT | {name: value})
    assert words in miss


def test_every_figure_is_in_the_readme_and_no_other() -> None:
    rows = re.findall(r"^\| (`.+?`) \| .+ \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    documented = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(documented) == sorted(FIGURES)


def test_the_report_holds_the_figures_in_their_order(tmp_path: Path) -> None:
    figures: dict[str, Any] = {name: 1 for name in reversed(FIGURES) if name != "version"}
    write(figures, tmp_path / "report.json")
    assert list(json.loads((tmp_path / "report.json").read_text())) == list(FIGURES)


def test_nested_figures_read_as_words() -> None:
    machine = {"processor": "EPYC", "instruction_sets": ["avx2", "f16c"], "memory_bytes": 2**33}
    assert cell(machine) == "processor EPYC, instruction_sets avx2 f16c, memory_bytes 8.0 GiB"
    assert cell({"gflops": {"float32": 127.0}, "took_s": 5}) == "gflops (float32 127.0), took_s 5"


def test_events_are_counted_from_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    database = Database.open(path)
    try:
        for event in ("kept", "twice", "twice"):
            database.write_now(
                lambda cursor, event=event: cursor.execute(
                    'INSERT INTO interactions (id, "time", ingested_at, model, status, trusted,'
                    " source) VALUES ($id, $now, $now, 'support', 'ok', true, 'kafka')",
                    {"id": event, "now": datetime.now(UTC)},
                )
            )
    finally:
        database.close()
    sent = Sent(interactions={"kept", "twice", "lost"}, feedback=set(), failed=0, requests=3)

    found = from_store(path, sent, poisoned_run="none", forced="none")

    assert (found["events_sent"], found["events_stored"]) == (3, 3)
    assert (found["events_lost"], found["events_duplicated"]) == (1, 1)
    assert found["rollback_decision_to_last_bad_request_s"] is None
    assert found["training_step_s"] is None
    assert found["training_paused_s"] is None


def test_a_training_step_is_counted_over_the_steps_a_child_did_itself(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    database = Database.open(path)
    runs = [
        {"train_s": 60.0, "paused_s": 45.5, "steps": 36, "resumed_from": 16},
        {"train_s": 100.0, "steps": 36, "resumed_from": 0},
    ]
    try:
        for number, figures in enumerate(runs):
            database.write_now(
                lambda cursor, number=number, figures=figures: cursor.execute(
                    "INSERT INTO transitions VALUES ('run', $run, 'training', 'trained', 'demo',"
                    " '', $evidence, now())",
                    {"run": f"run-{number}", "evidence": json.dumps(figures)},
                )
            )
    finally:
        database.close()
    sent = Sent(interactions=set(), feedback=set(), failed=0, requests=0)

    found = from_store(path, sent, poisoned_run="none", forced="none")

    assert found["training_step_s"] == round(160 / 56, 2)
    assert found["training_paused_s"] == 45.5


def test_the_golden_file_is_what_customers_never_ask() -> None:
    assert (ROOT / "policies" / "golden" / "support.jsonl").read_text() == golden_file()
