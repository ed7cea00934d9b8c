"""Draw one status document for `adaptd watch`. Pure."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from adaptd.daemon.commands.output import cell
from adaptd.daemon.wire.errors import join_sentences

_BAR_WIDTH = 40


def render(status: Mapping[str, Any]) -> RenderableType:
    """The whole screen. Parts the document lacks are left out."""
    parts: list[RenderableType] = [_draw_head(status)]
    if "events" in status:
        parts.append(_draw_ingestion(status))
    parts += [_draw_model(model) for model in status.get("models", ())]
    if trouble := _draw_trouble(status):
        parts.append(trouble)
    return Group(*parts)


def _draw_head(status: Mapping[str, Any]) -> Text:
    ready = status.get("ready")
    head = Text(f"adaptd {status.get('version', '')}  ")
    head.append("ready" if ready else "not ready", "bold green" if ready else "bold red")
    return head.append(f"  {cell(status.get('time'))}")


def _draw_ingestion(status: Mapping[str, Any]) -> Panel:
    events, ingest = status["events"], status.get("ingest", {})
    table = _make_grid()
    table.add_row("source", f"{ingest.get('source', '-')}  {ingest.get('state', '-')}")
    table.add_row(
        "events",
        f"{events['interactions']} interactions, {events['feedback']} feedback, "
        f"{events['last_minute']} in the last minute",
    )
    table.add_row("dead letters", str(events["dead_letters"]))
    if ingest.get("lag") is not None:
        table.add_row("lag", f"{ingest['lag']} messages")
    if ingest.get("orphans"):
        table.add_row("orphans", f"{ingest['orphans']} feedback wait for their interaction")
    for gateway in status.get("gateways", ()):
        flying = sum(gateway.get("in_flight", {}).values())
        words = f"table {gateway['epoch']}, {flying} in flight, {gateway['spool_events']} spooled"
        table.add_row(f"gateway {gateway['gateway']}", words)
    return Panel(table, title="ingestion", title_align="left")


def _draw_model(model: Mapping[str, Any]) -> Panel:
    table = _make_grid()
    policy = model.get("policy") or {}
    table.add_row("policy", f"version {cell(policy.get('version'))}")
    table.add_row("live", f"{model.get('live') or 'base model'}")
    if model.get("canary"):
        table.add_row("canary", f"{model['canary']}  {model.get('weight', 0):.0%} of units")
    if model.get("last_good"):
        table.add_row("last good", str(model["last_good"]))
    if model.get("trigger"):
        table.add_row("training", str(model["trigger"]))
    if run := model.get("run"):
        table.add_row("run", _describe_run(run))
    if verdict := model.get("evaluation"):
        table.add_row("evaluation", _describe_evaluation(verdict))
    if rollout := model.get("rollout"):
        table.add_row("rollout", _describe_rollout(rollout))
        for name, words in evidence_rows(rollout.get("evidence") or {}):
            table.add_row(f"  {name}", words)
    return Panel(table, title=str(model["model"]), title_align="left")


def _describe_evaluation(evaluation: Mapping[str, Any]) -> Text:
    verdict = evaluation["verdict"]
    words = Text(verdict, _colour_of(verdict)).append(f"  {evaluation['candidate']}")
    report = evaluation.get("report") or {}
    if report.get("reason"):
        words.append(f"\n{report['reason']}")
    for suite, means in (report.get("suites") or {}).items():
        if found := means.get("exact_match"):
            words.append(f"\n{suite}: exact match {found['live']:.0%} → {found['candidate']:.0%}")
    return words


def evidence_rows(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The guard's evidence in rows; an e-value is compared with 1/alpha."""
    rows = [("waits for", str(evidence["waits"]))] if evidence.get("waits") else []
    if because := evidence.get("rolled_back_because"):
        rows.append(("taken back", str(because)))
    guard = evidence.get("guard") or {}
    if not guard:
        return rows
    units = f"{guard['units_live']} live, {guard['units_canary']} canary"
    worse, better = (
        ", ".join(f"{name} {value:.3g}" for name, value in guard[side].items())
        for side in ("worse", "better")
    )
    rows.append(("units", f"{units}, {guard['units_this_step']} in this step"))
    rows.append(("worse?", f"e {guard['rollback_e']:.3g}  ({worse})"))
    rows.append(("good enough?", f"e {guard['promotion_e']:.3g}  ({better})"))
    for name, counts in guard["counts"].items():
        rows.append((str(name), f"{counts['live']} live, {counts['canary']} canary"))
    return rows


def _describe_run(run: Mapping[str, Any]) -> Text:
    words = Text(f"{run['run_id']}  ")
    words.append(run["state"], _colour_of(run["state"]))
    if run.get("reason") and run["state"] not in ("training", "evaluating"):
        words.append(f"  {run['reason']}")
    progress = run.get("progress") or {}
    if run["state"] not in ("training", "evaluating") or not progress.get("total"):
        return words
    done = round(_BAR_WIDTH * progress.get("step", 0) / progress["total"])
    words.append(f"\n{'━' * done}", "green").append("━" * (_BAR_WIDTH - done), "dim")
    return words.append(f"\n{progress_words(progress)}")


def progress_words(progress: Mapping[str, Any]) -> str:
    """Progress of a training or an evaluation, as last reported."""
    phase = progress.get("phase") or progress.get("stage") or "training"
    counted = "item" if phase == "evaluating" else "step"
    words = [f"{counted} {progress.get('step', 0)} of {progress.get('total', '?')}"]
    if phase not in ("training", "evaluating"):
        words.insert(0, str(phase))
    if progress.get("loss") is not None:
        words.append(f"loss {progress['loss']:.3f}")
    if progress.get("tokens_per_s") is not None:
        words.append(f"{progress['tokens_per_s']:.0f} tokens/s")
    if progress.get("eta_s") is not None:
        words.append(f"{progress['eta_s']:.0f} s left")
    return ", ".join(words)


def _describe_rollout(rollout: Mapping[str, Any]) -> Text:
    words = Text(f"{rollout['rollout_id']}  {rollout['candidate']}  ")
    words.append(rollout["state"], _colour_of(rollout["state"]))
    if rollout["state"] == "step":
        words.append(f" {rollout['step']}")
    if rollout.get("paused"):
        words.append(f"  paused: {rollout['paused']}", "yellow")
    return words


def _draw_trouble(status: Mapping[str, Any]) -> Panel | None:
    lines = [
        Text(f"{part['part']}: {part['problem']}", "red") for part in status.get("not_ready", ())
    ]
    lines += [
        Text(join_sentences(alert["what"], alert["remedy"]), _colour_of(alert["level"]))
        for alert in status.get("alerts", ())
    ]
    return Panel(Group(*lines), title="alerts", title_align="left") if lines else None


def _colour_of(word: str) -> str:
    if word in ("pass", "accepted", "live"):
        return "green"
    if word in ("fail", "failed", "rejected", "rolled_back", "aborted", "error"):
        return "red"
    return "yellow" if word in ("inconclusive", "warning", "cancelled") else ""


def _make_grid() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    return table
