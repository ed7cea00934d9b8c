"""`adaptd deadletters`: events that could not be used, with their bytes and the reason."""

from collections import Counter
from typing import Annotated, Any

import typer

from adaptd.daemon.commands.bar import Bar
from adaptd.daemon.commands.client import DaemonClient, connect
from adaptd.daemon.commands.errors import MisuseError
from adaptd.daemon.commands.output import AsJson, print_fields, print_json, print_rows, say

app = typer.Typer(
    no_args_is_help=True, help="Events that could not be used. Example: adaptd deadletters list"
)
_IDS_AT_ONCE = 500


@app.command("list")
def list_letters(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    reason: Annotated[str | None, typer.Option("--reason", help="Only with this reason.")] = None,
    counts: Annotated[bool, typer.Option("--counts", help="A line a reason instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first: id, received, reason, detail, topic, partition, position.

    With --counts: reason, letters since the store was made, those kept, those not redriven, first
    and last received.

    Example: adaptd deadletters list --reason invalid --limit 5
    """
    client = connect()
    if counts:
        columns = ("reason", "letters", "kept", "waiting", "first_at", "last_at")
        print_rows(client.get("/v1/deadletters/by-reason"), columns, as_json=as_json)
        return
    columns = ("id", "received_at", "reason", "detail", "topic", "partition", "position")
    found = client.get("/v1/deadletters", limit=limit, reason=reason)
    print_rows(found, columns, as_json=as_json)
    if len(found) == limit:
        say(f"the newest {limit}; all by reason: adaptd deadletters list --counts")


@app.command("show")
def show(
    letter_id: Annotated[
        str, typer.Argument(help="Its id, as `adaptd deadletters list` prints it.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show one dead letter with its bytes (base64 where they are not UTF-8).

    Example: adaptd deadletters show kafka/interactions.v1/0/17/0
    """
    print_fields(connect().get(f"/v1/deadletters/{letter_id}"), as_json=as_json)


@app.command("redrive")
def redrive(
    ids: Annotated[list[str] | None, typer.Argument(help="Letters, by id.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="All with this reason.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that were not redriven yet.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try dead letters again, the same way and under the same sender as at first.

    Prints what became of each: stored, duplicate (stored before), dead (again, it stays), or
    skipped, with reason and detail. Safe to repeat. Exit 1 where one is not stored.

    Example: adaptd deadletters redrive --reason unknown_version
    """
    if sum((bool(ids), reason is not None, every)) != 1:
        remedy = "Name letters, or give --reason or --all"
        raise MisuseError("redrive", "which letters is not clear", remedy)
    results = _redrive_letters(connect(), list(dict.fromkeys(ids or [])), reason)
    found = Counter(result["result"] for result in results)
    if as_json:
        print_json({"counts": found, "results": results})
    else:
        print_rows(results, ("id", "result", "reason", "detail"), as_json=False)
    say(", ".join(f"{count} {result}" for result, count in found.most_common()) or "none waits")
    if missing := set(ids or []) - {result["id"] for result in results}:
        say(f"redriven before, or unknown: {', '.join(sorted(missing))}")
    if found["dead"] or found["skipped"]:
        raise typer.Exit(1)


def _redrive_letters(
    client: DaemonClient, ids: list[str], reason: str | None
) -> list[dict[str, Any]]:
    if not ids:
        kept = client.get("/v1/deadletters/by-reason")
        total = sum(row["waiting"] for row in kept if reason in (None, row["reason"]))
        return _redrive_in_pages(client, {"reason": reason}, total=total)
    parts = [ids[start : start + _IDS_AT_ONCE] for start in range(0, len(ids), _IDS_AT_ONCE)]
    return [
        result
        for part in parts
        for result in _redrive_in_pages(client, {"ids": part}, total=len(part))
    ]


def _redrive_in_pages(
    client: DaemonClient, choice: dict[str, Any], *, total: int
) -> list[dict[str, Any]]:
    """Step by step, so that no request takes long however many there are."""
    results: list[dict[str, Any]] = []
    after: dict[str, Any] | None = None
    with Bar("redrive", total=total) as bar:
        while True:
            done = client.post("/v1/deadletters/redrive", {**choice, "after": after})
            results += done["results"]
            bar.tell(len(results), f"{len(results)} letters")
            after = done["next"]
            if after is None:
                return results
