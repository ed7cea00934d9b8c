"""The status document: one answer for `adaptd status`, `adaptd watch` and scripts. Pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from adaptd import __version__
from adaptd.daemon.store.status_reads import StoreFacts
from adaptd.daemon.web.ports import GatewaySeen, LiveFacts, PartState, StatusProblem

_RUN_FIELDS = ("run_id", "state", "reason", "adapter", "progress", "created_at", "finished_at")
_EVALUATION_FIELDS = (
    "run_id",
    "candidate",
    "live",
    "verdict",
    "k",
    "alpha",
    "report",
    "created_at",
)
_ROLLOUT_FIELDS = (
    "rollout_id",
    "candidate",
    "previous",
    "state",
    "step",
    "paused",
    "override_reason",
    "evidence",
    "created_at",
    "step_started_at",
)
_LIMITED_KEYS = ("version", "time", "started_at", "ready", "not_ready", "alerts", "models")
_UNTOLD = "a token of every alias is told why"
StatusDocument = dict[str, Any]


def status_document(facts: StoreFacts, live: LiveFacts, now: datetime) -> StatusDocument:
    """Everything at a glance, ready for JSON."""
    waiting = not_ready(live.parts)
    document = {
        "version": __version__,
        "time": now,
        "started_at": live.started_at,
        "ready": not waiting,
        "not_ready": waiting,
        "alerts": alerts(facts, live.problems),
        "restore": live.restore,
        "events": facts.events,
        "ingest": ingest_document(facts, live),
        "host": live.host,
        "gateways": gateway_documents(live.gateways),
        "epoch": facts.newest_table[0]["epoch"] if facts.newest_table else None,
        "models": [_describe_model(name, facts, live) for name in model_names(facts, live)],
    }
    return msgspec.to_builtins(document)


def limited_document(
    facts: StoreFacts, live: LiveFacts, now: datetime, models: Collection[str]
) -> StatusDocument:
    """The part of the status that concerns some aliases alone.

    Problems in words may name other aliases, so only the names of parts are told.
    """
    rollouts = [row for row in facts.newest_rollouts if row["model"] in models]
    own = msgspec.structs.replace(facts, newest_rollouts=rollouts, open_halts=[])
    parts = [PartState(part=part.part, problem=_UNTOLD) for part in not_ready(live.parts)]
    found = status_document(own, msgspec.structs.replace(live, parts=parts, problems=[]), now)
    found["models"] = [model for model in found["models"] if model["model"] in models]
    return {key: found[key] for key in _LIMITED_KEYS}


def not_ready(parts: Iterable[PartState]) -> list[PartState]:
    return [part for part in parts if part.problem is not None]


def alerts(facts: StoreFacts, problems: Sequence[StatusProblem]) -> list[StatusProblem]:
    """List what a person should look at: halts first, then reports of the parts."""
    halts = [
        StatusProblem(
            level="error",
            what=f"ingestion is halted: {halt['reason']}",
            remedy="Look at `adaptd ingest status`, then `adaptd ingest resume`",
        )
        for halt in facts.open_halts
    ]
    on_their_way = [row for row in facts.newest_rollouts if row["finished_at"] is None]
    return [*halts, *problems, *(alert for row in on_their_way for alert in _rollout_alerts(row))]


def _rollout_alerts(row: StatusDocument) -> Iterator[StatusProblem]:
    """List what an unfinished rollout asks of a person."""
    which = f"rollout {row['rollout_id']} of {row['model']}"
    evidence = row["evidence"] or {}
    guard = evidence.get("guard") or {}
    if row["paused"]:
        remedy = "Resume or abort it: adaptd rollout resume|abort"
        yield StatusProblem(
            level="warning", what=f"{which} is paused: {row['paused']}", remedy=remedy
        )
    elif row["approved_by"] is None or evidence.get("asks"):
        remedy = "Let it go on or end it: adaptd rollout promote|abort"
        yield StatusProblem(level="warning", what=f"{which} waits for a person", remedy=remedy)
    if guard.get("verdict") == "veto":
        what = f"{which}: users may be worse off ({guard['reason']})"
        yield StatusProblem(level="warning", what=what, remedy="Look at it: adaptd rollout show")


def ingest_document(facts: StoreFacts, live: LiveFacts) -> StatusDocument:
    return {
        **live.ingest,
        "halted": facts.open_halts,
        "positions": facts.offsets,
        "dead_letters": {row["reason"]: row["count"] for row in facts.dead_letters_by_reason},
        "rate_per_s": round(facts.events.last_minute / 60, 1),
        "duplicates": facts.events.duplicates,
        "orphans": facts.events.orphans,
        "store_bytes": facts.store_bytes,
        "timing": {source: meter.summary() for source, meter in live.meters.items()},
    }


def gateway_documents(seen: Sequence[GatewaySeen]) -> list[StatusDocument]:
    return [msgspec.structs.asdict(item.state) | {"seen_at": item.seen_at} for item in seen]


def model_names(facts: StoreFacts, live: LiveFacts) -> list[str]:
    """Every alias that has a policy, a run or an adapter."""
    rows = [*facts.newest_runs, *facts.adapters_by_state, *facts.newest_rollouts]
    return sorted({row["model"] for row in rows} | {policy.model for policy in live.policies})


def route_of(facts: StoreFacts, model: str) -> Mapping[str, Any]:
    """The alias's route in the newest published table; empty where there is none."""
    if not facts.newest_table:
        return {}
    return facts.newest_table[0]["published"].get("routes", {}).get(model, {})


def _describe_model(model: str, facts: StoreFacts, live: LiveFacts) -> StatusDocument:
    route = route_of(facts, model)
    policy = next((policy for policy in live.policies if policy.model == model), None)
    return {
        "model": model,
        "policy": policy and {"version": policy.version, "path": policy.path},
        "live": route.get("live"),
        "last_good": route.get("last_good"),
        "canary": route.get("canary") if route.get("canary_on") else None,
        "weight": route.get("weight", 0.0) if route.get("canary_on") else None,
        "holdback": route.get("holdback", 0.0),
        "trigger": live.triggers.get(model),
        "run": _find_newest(facts.newest_runs, model, _RUN_FIELDS),
        "evaluation": _find_newest(facts.newest_evaluations, model, _EVALUATION_FIELDS),
        "rollout": _find_newest(facts.newest_rollouts, model, _ROLLOUT_FIELDS),
        "runs": _count_states(facts.runs_by_state, model),
        "adapters": _count_states(facts.adapters_by_state, model),
    }


def _find_newest(
    found: Sequence[StatusDocument], model: str, fields: Sequence[str]
) -> StatusDocument | None:
    row = next((row for row in found if row["model"] == model), None)
    return row and {field: row[field] for field in fields}


def _count_states(found: Sequence[StatusDocument], model: str) -> dict[str, int]:
    return {row["state"]: row["count"] for row in found if row["model"] == model}
