"""The status document: what is said of routes, runs and rollouts, and what becomes an alert."""

from datetime import UTC, datetime
from typing import Any

from adaptd.daemon.store.status_reads import EventTotals, StoreFacts
from adaptd.daemon.web.ports import LiveFacts, PartState, StatusProblem
from adaptd.daemon.web.status import status_document

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ROLLOUT: dict[str, Any] = {
    "rollout_id": "rollout-1",
    "model": "support",
    "candidate": "support@v2-00000000",
    "previous": "support@v1-00000000",
    "state": "step",
    "step": 2,
    "paused": None,
    "approved_by": "policy",
    "override_reason": None,
    "evidence": {},
    "created_at": NOW,
    "step_started_at": NOW,
    "finished_at": None,
}


def facts(**changes: Any) -> StoreFacts:
    counts = EventTotals(
        interactions=1,
        feedback=0,
        dead_letters=0,
        unpublished_letters=0,
        last_minute=0,
        last_interaction_at=None,
        last_feedback_at=None,
    )
    rows = {
        name: changes.get(name, []) for name in StoreFacts.__struct_fields__ if name != "events"
    }
    return StoreFacts(events=counts, **rows)


def live(**changes: Any) -> LiveFacts:
    return LiveFacts(started_at=NOW, **changes)


def alerts(rollout: dict[str, Any]) -> list[str]:
    document = status_document(facts(newest_rollouts=[ROLLOUT | rollout]), live(), NOW)
    return [alert["what"] for alert in document["alerts"]]


def test_the_route_in_force_says_what_is_served() -> None:
    route = {"live": "support@v1-00000000", "canary": "support@v2-00000000", "weight": 0.25}
    published = {"routes": {"support": route | {"canary_on": True, "holdback": 0.05}}}
    table = [{"epoch": 7, "published": published, "reason": "step", "created_at": NOW}]
    document = status_document(facts(newest_table=table, newest_rollouts=[ROLLOUT]), live(), NOW)
    model = document["models"][0]
    assert document["epoch"] == 7
    assert (model["live"], model["canary"]) == ("support@v1-00000000", "support@v2-00000000")
    assert (model["weight"], model["holdback"]) == (0.25, 0.05)
    assert model["rollout"]["step"] == 2


def test_a_canary_that_is_off_is_not_shown() -> None:
    route = {"live": None, "canary": "support@v2-00000000", "canary_on": False, "weight": 0.0}
    table = [
        {"epoch": 1, "published": {"routes": {"support": route}}, "reason": "", "created_at": NOW}
    ]
    model = status_document(facts(newest_table=table, newest_rollouts=[ROLLOUT]), live(), NOW)[
        "models"
    ][0]
    assert (model["canary"], model["weight"]) == (None, None)


def test_ready_only_where_every_part_is() -> None:
    parts = [PartState(part="vllm"), PartState(part="ingest", problem="halted: a gap")]
    document = status_document(facts(), live(parts=parts), NOW)
    assert document["ready"] is False
    assert document["not_ready"] == [{"part": "ingest", "problem": "halted: a gap"}]
    assert status_document(facts(), live(parts=parts[:1]), NOW)["ready"] is True


def test_halts_come_first_among_the_alerts() -> None:
    halt = {"halted_at": NOW, "reason": "the topic is gone", "detail": None}
    problem = StatusProblem(level="warning", what="a policy is broken", remedy="Mend it")
    document = status_document(facts(open_halts=[halt]), live(problems=[problem]), NOW)
    assert "the topic is gone" in document["alerts"][0]["what"]
    assert document["alerts"][1]["what"] == "a policy is broken"


def test_a_rollout_that_needs_a_person_is_an_alert() -> None:
    assert alerts({}) == []
    assert "is paused: freeze" in alerts({"paused": "freeze"})[0]
    assert "waits for a person" in alerts({"approved_by": None})[0]
    assert "waits for a person" in alerts({"evidence": {"asks": True}})[0]
    assert alerts({"paused": "x", "finished_at": NOW}) == []


def test_evidence_against_a_version_is_an_alert_also_after_it_is_live() -> None:
    guard = {"verdict": "veto", "reason": "negative speaks against it: e 4.9 of 4.5"}
    found = alerts({"state": "live", "evidence": {"guard": guard}})
    assert found == [
        "rollout rollout-1 of support: users may be worse off (negative speaks against it: "
        "e 4.9 of 4.5)"
    ]
