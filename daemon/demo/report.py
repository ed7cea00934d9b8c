"""The demo's proof, counted from both ends: requests of the customers, rows of the store."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from adaptd import __version__
from adaptd.daemon.demo.customers import POISONER, CustomerTally
from adaptd.daemon.store.database.database import Connection, Database, rows
from adaptd.daemon.store.database.statements import statements

# In the order in which they are told. README.md says what each one means.
FIGURES = (
    "setup_s",
    "loop_s",
    "stages_s",
    "requests_per_s",
    "training_step_s",
    "training_paused_s",
    "events_sent",
    "events_stored",
    "events_lost",
    "events_duplicated",
    "requests",
    "requests_failed",
    "exact_match_before",
    "exact_match_after",
    "exact_match_unseen_phrasings_after",
    "tokens_per_request_before",
    "tokens_per_request_after",
    "first_live_s",
    "trigger_to_live_s",
    "poisoned_rows_trained",
    "poisoned_candidate_stopped_by",
    "bad_adapter_requests",
    "rollback_decision_to_last_bad_request_s",
    "kills",
    "machine",
    "dtype",
    "calibration",
    "version",
)
_BEFORE, _AFTER = 0.2, 0.7  # exact match on fresh messages


@dataclass(frozen=True)
class Sent:
    """Events that the customers know to be accepted."""

    interactions: set[str]
    feedback: set[str]
    failed: int
    requests: int


def share(tally: CustomerTally, asked: int) -> dict[str, float]:
    """Exact match with its 95 % Wilson interval."""
    interval = binomtest(tally.right, asked).proportion_ci(method="wilson")
    return {
        "value": round(tally.right / asked, 4),
        "low": round(float(interval.low), 4),
        "high": round(float(interval.high), 4),
        "n": asked,
    }


def mean(values: list[int]) -> float:
    return round(sum(values) / max(1, len(values)), 1)


def from_store(path: Path, sent: Sent, *, poisoned_run: str, forced: str) -> dict[str, Any]:
    """The report's figures that the store alone can tell. The daemon must have ended."""
    sql = statements("demo")
    database = Database.open(path)
    try:
        return database.write_now(
            lambda cursor: _query_figures(cursor, sql, sent, poisoned_run, forced)
        )
    finally:
        database.close()


def _query_figures(
    cursor: Connection, sql: dict[str, str], sent: Sent, poisoned_run: str, forced: str
) -> dict[str, Any]:
    stored = {row["id"]: row["copies"] for row in rows(cursor, sql["event_copies"])}
    wanted = sent.interactions | sent.feedback
    bad = rows(cursor, sql["bad_adapter"], rollout=forced)[0]
    step = rows(cursor, sql["training_step"])[0]
    return {
        "events_sent": len(wanted),
        "events_stored": sum(stored.values()),
        "events_lost": len(wanted - stored.keys()),
        "events_duplicated": sum(copies - 1 for copies in stored.values()),
        "requests": sent.requests,
        "requests_failed": sent.failed,
        "training_step_s": step["seconds"],
        "training_paused_s": step["paused_s"],
        "trigger_to_live_s": next(
            (row["seconds"] for row in rows(cursor, sql["trigger_to_live"])), None
        ),
        "poisoned_rows_trained": rows(
            cursor, sql["poisoned_rows"], run=poisoned_run, poisoner=POISONER
        )[0]["trained"],
        "poisoned_candidate_stopped_by": _stopped_by(cursor, sql, poisoned_run),
        "bad_adapter_requests": bad["requests"],
        "rollback_decision_to_last_bad_request_s": _clamp_delay(bad["late_s"]),
    }


def _clamp_delay(seconds: float | None) -> float | None:
    """0 where the last bad request began before the decision; None where there was none."""
    return None if seconds is None else max(0.0, round(seconds, 3))


def misses(report: dict[str, Any]) -> list[str]:
    """Every promise that the figures break, in words. Durations are targets, not promises."""
    promises = {
        "events were lost": report["events_lost"] > 0,
        "events were stored twice": report["events_duplicated"] > 0,
        "requests failed": report["requests_failed"] > 0,
        "the base model was right too often to learn from": _read_value(report, "before")
        >= _BEFORE,
        "the last adapter is right too seldom": _read_value(report, "after") < _AFTER,
        "no poisoned row was trained on": report["poisoned_rows_trained"] == 0,
        "no request reached the bad adapter": report["bad_adapter_requests"] == 0,
        "the bad adapter answered after its rollback": (
            report["rollback_decision_to_last_bad_request_s"] or 0
        )
        >= 1,
    }
    return [promise for promise, broken in promises.items() if broken]


def _read_value(report: dict[str, Any], when: str) -> float:
    return report[f"exact_match_{when}"]["value"]


def _stopped_by(cursor: Connection, sql: dict[str, str], run: str) -> str:
    found = rows(cursor, sql["run_reason"], run=run)
    return str(found[0]["reason"]) if found else ""


def write(report: dict[str, Any], path: Path) -> None:
    """The JSON file and the table on screen, with exactly the figures of `FIGURES`."""
    found = report | {"version": __version__}
    full = {name: found.pop(name) for name in FIGURES}
    assert not found, f"not in FIGURES: {', '.join(found)}"
    path.write_text(json.dumps(full, indent=2) + "\n")
    table = Table("figure", "value")
    for name, value in full.items():
        table.add_row(name, cell(value))
    Console().print(table)


def cell(value: Any) -> str:
    """A figure on screen. Nested ones read as `name value, name value`."""
    if isinstance(value, dict) and "low" in value:
        return (
            f"{value['value']:.3f}  ({value['low']:.3f} to {value['high']:.3f}, n = {value['n']})"
        )
    if isinstance(value, dict):
        return ", ".join(f"{name} {_render_leaf(name, inner)}" for name, inner in value.items())
    return str(value)


def _render_leaf(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"({cell(value)})"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value / 2**30:.1f} GiB" if name.endswith("_bytes") else str(value)
