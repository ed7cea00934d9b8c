"""`adaptd status` and `adaptd watch`: the loop at a glance."""

import sys
import time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from adaptd.daemon.commands.client import DaemonClient, connect
from adaptd.daemon.commands.errors import NoDaemonError
from adaptd.daemon.commands.output import AsJson, print_json, print_rows, say
from adaptd.daemon.commands.panel import render
from adaptd.daemon.wire.errors import join_sentences


def register(app: typer.Typer) -> None:
    app.command("status")(status)
    app.command("watch")(watch)


def status(as_json: AsJson = False) -> None:
    """Say what is served, trained and rolled out: one line an alias.

    Columns: alias, live, canary, weight, last run's state, rollout's state, policy version. What is
    not ready and every alert go to stderr.

    Example: adaptd status --json
    """
    found = connect().get("/v1/status")
    if as_json:
        print_json(found)
        return
    columns = (
        "model",
        "live",
        "canary",
        "weight",
        "run.state",
        "rollout.state",
        "policy.version",
    )
    print_rows(found["models"], columns, as_json=False)
    events = found["events"]
    say(
        f"{'ready' if found['ready'] else 'NOT READY'}: {events['interactions']} interactions, "
        f"{events['feedback']} feedback, {events['dead_letters']} dead letters"
    )
    if events.get("unscaled_ratings"):
        say(f"{events['unscaled_ratings']} ratings without a scale: nothing is learnt from them")
    say(_describe_ingestion(found["ingest"]))
    for part in found["not_ready"]:
        say(f"not ready: {part['part']}: {part['problem']}")
    for alert in found["alerts"]:
        say(f"{alert['level']}: {join_sentences(alert['what'], alert['remedy'])}")


def _describe_ingestion(ingest: dict[str, Any]) -> str:
    """Lag, rate and what is left over, in one line."""
    lag = "no lag known" if ingest.get("lag") is None else f"{ingest['lag']} behind"
    words = [f"{ingest.get('source', '-')} {ingest.get('state', '-')}", lag]
    words.append(f"{ingest['rate_per_s']} events/s")
    timing = ingest["timing"].get(ingest.get("source"), {})
    if timing.get("commit_p99_ms") is not None:
        words.append(f"commits in {timing['commit_p99_ms']:.0f} ms (p99)")
    words.append(f"{ingest['duplicates']} duplicates, {ingest['orphans']} orphans")
    words.append(f"store {sum(ingest['store_bytes'].values()) / 1e6:.0f} MB")
    return ", ".join(words)


def watch(
    once: Annotated[bool, typer.Option("--once", help="Draw once and end.")] = False,
    every_s: Annotated[float, typer.Option("--every", min=0.2, help="Seconds between looks.")] = 1,
) -> None:
    """Show the loop live: events, training, verdict, rollout and its evidence, alerts.

    Example: adaptd watch
    """
    client = connect()
    console = Console()
    if once or not sys.stdout.isatty():
        console.print(render(client.get("/v1/status")))
        return
    with Live(console=console, refresh_per_second=4, screen=True) as live:
        _keep_drawing(client, live, every_s)


def _keep_drawing(client: DaemonClient, live: Live, every_s: float) -> None:
    """Until Ctrl-C. A daemon that goes away is said so, and shown again once it is back."""
    while True:
        live.update(render(_read_status(client)))
        try:
            time.sleep(every_s)
        except KeyboardInterrupt:
            return


def _read_status(client: DaemonClient) -> dict[str, Any]:
    try:
        return client.get("/v1/status")
    except NoDaemonError as error:
        return {"ready": False, "not_ready": [{"part": "daemon", "problem": error.problem}]}
