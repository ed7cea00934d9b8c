"""`adaptd erase` and `adaptd erasures`: forget a person, and see how far that is."""

import sys
import time
from typing import Annotated, Any

import typer

from adaptd.daemon.commands.client import DaemonClient, connect
from adaptd.daemon.commands.output import AsJson, print_fields, print_rows, say

POLL_S = 0.5
_LONGEST = 128

app = typer.Typer(
    no_args_is_help=True, help="People who were erased. Example: adaptd erasures list"
)
User = Annotated[
    str,
    typer.Option("--user", "-u", help="As events name them; `-` reads it from standard input."),
]
Tenant = Annotated[
    str | None, typer.Option("--tenant", help="Only that tenant's user of this name.")
]
Why = Annotated[
    str, typer.Option("--reason", "-r", help="Kept for good: do not name the person in it.")
]
ErasureId = Annotated[str, typer.Argument(help="Its id, as `adaptd erasures list` prints it.")]
_COLUMNS = ("erasure_id", "state", "requested_at", "finished_at", "tenant", "waits_for", "reason")
_COUNTS = ("interactions", "feedback", "conversations", "turns_of_others", "dead_letters")


def register(root: typer.Typer) -> None:
    root.command("erase")(erase)


def erase(
    user: User,
    tenant: Tenant = None,
    reason: Why = "asked by the person",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and change nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until it is done.")] = True,
    as_json: AsJson = False,
) -> None:
    """Remove a person from every file of ours, and tell what is outside our reach.

    Safe to repeat, and after Ctrl-C the daemon goes on.

    Example: adaptd erase --user ada --tenant desk --dry-run
    """
    daemon = connect()
    asked = {"user": _read_user(user), "tenant": tenant, "reason": reason, "dry_run": dry_run}
    found = daemon.post("/v1/erasures", asked)
    if dry_run:
        _print_report(found, as_json=as_json)
        return
    if wait:
        found = _follow_erasure(daemon, found)
    _print_report(found, as_json=as_json)


@app.command("list")
def list_erasures(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List erasures, newest first: id, state, asked, finished, tenant, what it waits for, reason.

    Example: adaptd erasures list
    """
    print_rows(connect().get("/v1/erasures", limit=limit), _COLUMNS, as_json=as_json)


@app.command("show")
def show(erasure_id: ErasureId, as_json: AsJson = False) -> None:
    """Show one: what was removed, which versions are tainted, what is outside our reach.

    Example: adaptd erasures show er-0198c2f1aa
    """
    _print_report(connect().get(f"/v1/erasures/{erasure_id}"), as_json=as_json)


@app.command("lift")
def lift(user: User, reason: Why, tenant: Tenant = None, as_json: AsJson = False) -> None:
    """Store events of an erased person again from now on: they came back.

    Example: adaptd erasures lift --user ada --reason "new contract"
    """
    asked = {"user": _read_user(user), "tenant": tenant, "reason": reason}
    print_fields(connect().post("/v1/erasures/lift", asked), as_json=as_json)


def _read_user(user: str) -> str:
    """`-`: a shell's history and other users of the machine need not see it."""
    return sys.stdin.readline(_LONGEST + 2).strip() if user == "-" else user


def _follow_erasure(daemon: DaemonClient, found: dict[str, Any]) -> dict[str, Any]:
    """Say each step on stderr until it is done."""
    told = ""
    try:
        while found["state"] != "done":
            line = f"{found['erasure_id']}: {found['state']}"
            line += f", waits for {found['waits_for']}" if found.get("waits_for") else ""
            if line != told:
                say(line)
            told = line
            time.sleep(POLL_S)
            found = daemon.get(f"/v1/erasures/{found['erasure_id']}")
    except KeyboardInterrupt:
        say(f"The daemon goes on. Look: adaptd erasures show {found['erasure_id']}")
        raise typer.Exit(130) from None
    return found


def _print_report(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_fields(found, as_json=True)
        return
    report: dict[str, Any] = found.get("report", found)
    for name in ("erasure_id", "state", "person", "waits_for", "barred_until"):
        if found.get(name):
            typer.echo(f"{name}\t{found[name]}")
    for name in _COUNTS:
        typer.echo(f"{name}\t{report.get(name, 0)}")
    for name in ("snapshots", "versions", "runs_stopped"):
        typer.echo(f"{name}\t{', '.join(report.get(name) or []) or '-'}")
    for beyond in report.get("outside", []):
        typer.echo(f"outside\t{beyond['where']}\t{beyond['what']}\t{beyond['remedy']}")
