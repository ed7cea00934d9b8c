"""What `adaptd watch` draws."""

import io
from typing import Any

from rich.console import Console

from adaptd.daemon.commands.panel import evidence_rows, progress_words, render

GUARD = {
    "units_live": 90,
    "units_canary": 40,
    "units_this_step": 40,
    "rollback_e": 1.25,
    "worse": {"negative": 1.5, "error": 1.0},
    "promotion_e": 3.0,
    "better": {"negative": 3.0},
    "counts": {"negative": {"live": 20, "canary": 3}},
}
STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "time": "2026-11-22T10:00:00Z",
    "ready": False,
    "not_ready": [{"part": "vllm", "problem": "loading weights"}],
    "alerts": [{"level": "warning", "what": "a policy is broken", "remedy": "Mend it"}],
    "events": {"interactions": 12, "feedback": 3, "dead_letters": 1, "last_minute": 4},
    "ingest": {"source": "kafka", "state": "running", "lag": 7},
    "gateways": [{"gateway": "g1", "epoch": 5, "in_flight": {"a": 2}, "spool_events": 0}],
    "models": [
        {
            "model": "support",
            "policy": {"version": 2},
            "live": None,
            "last_good": None,
            "canary": "support@v1-00000000",
            "weight": 0.25,
            "run": {
                "run_id": "run-1",
                "state": "training",
                "progress": {"step": 9, "total": 36, "loss": 1.5, "tokens_per_s": 40, "eta_s": 70},
            },
            "evaluation": {
                "verdict": "pass",
                "candidate": "support@v1-00000000",
                "report": {
                    "reason": "exact match rose on fresh",
                    "suites": {"fresh": {"exact_match": {"live": 0.1, "candidate": 0.75}}},
                },
            },
            "rollout": {
                "rollout_id": "rollout-1",
                "candidate": "support@v1-00000000",
                "state": "step",
                "step": 2,
                "paused": None,
                "evidence": {"waits": "40 of 200 units", "guard": GUARD},
            },
        }
    ],
}


def drawn(status: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(render(status))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_everything_an_operator_asks_for_is_on_the_screen() -> None:
    screen = drawn(STATUS)
    for words in (
        "not ready",
        "loading weights",
        "a policy is broken. Mend it",
        "12 interactions, 3 feedback, 4 in the last minute",
        "7 messages",
        "base model",
        "25% of units",
        "step 9 of 36, loss 1.500, 40 tokens/s, 70 s left",
        "pass  support@v1-00000000",
        "rollout-1  support@v1-00000000  step 2",
        "fresh: exact match 10% → 75%",
        "40 of 200 units",
        "90 live, 40 canary, 40 in this step",
        "e 1.25  (negative 1.5, error 1)",
        "20 live, 3 canary",
    ):
        assert words in screen


def test_a_daemon_that_is_away_is_said_so() -> None:
    screen = drawn({"ready": False, "not_ready": [{"part": "daemon", "problem": "away"}]})
    assert "daemon: away" in screen


def test_progress_says_only_what_is_known() -> None:
    assert progress_words({"step": 1, "total": 9}) == "step 1 of 9"


def test_an_evaluation_counts_items_and_a_phase_before_training_is_named() -> None:
    evaluating = {"stage": "evaluating", "step": 40, "total": 180, "eta_s": 12.0}
    assert progress_words(evaluating) == "item 40 of 180, 12 s left"
    assert progress_words({"phase": "loading", "step": 0, "total": 36}) == "loading, step 0 of 36"


def test_a_rollback_says_why() -> None:
    assert evidence_rows({"rolled_back_because": "negatives"}) == [("taken back", "negatives")]
    assert evidence_rows({}) == []
