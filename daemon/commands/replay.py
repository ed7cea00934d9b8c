"""`adaptd replay`: a part of the log read again, beside the live consumer."""

import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from adaptd.daemon.commands.bar import Bar
from adaptd.daemon.commands.client import DaemonClient, connect
from adaptd.daemon.commands.errors import MisuseError, NoDaemonError
from adaptd.daemon.commands.output import AsJson, Reason, print_fields, print_rows, say
from adaptd.daemon.wire.errors import RefusedError

app = typer.Typer()
ReplayId = Annotated[str, typer.Argument(help="A replay's id, as `adaptd replay list` prints it.")]
_POLL_S = 0.5
_PATIENCE_S = 60.0  # a daemon that is started anew goes on with it
_COLUMNS = (
    "replay_id",
    "state",
    "read",
    "size",
    "interactions",
    "feedback",
    "duplicates",
    "dead_letters",
    "created_at",
    "problem",
)


@app.callback(invoke_without_command=True)
def replay(  # noqa: PLR0913 - a part of the log has many bounds
    context: typer.Context,
    *,
    topic: Annotated[
        list[str] | None, typer.Option("--topic", help="A topic; give it again for more.")
    ] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition.")] = None,
    from_offset: Annotated[int | None, typer.Option(min=0, help="The first offset.")] = None,
    to_offset: Annotated[int | None, typer.Option(min=0, help="The offset to end before.")] = None,
    from_time: Annotated[
        str | None, typer.Option(help="Records from this time on, as 2026-11-22T12:00:00Z.")
    ] = None,
    to_time: Annotated[str | None, typer.Option(help="Records before this time.")] = None,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Kept for good.")] = "replay",
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Read a part of the log again into the store, and wait for its end.

    What is stored already is not stored twice, however long ago that was. The live consumer goes on
    beside it, its offsets stay, and what it has yet to read is left to it. Ctrl-C leaves the replay
    running in the daemon. Offsets are those of each partition.

    Example: adaptd replay --topic interactions.v1 --from-time 2026-11-22T12:00:00Z
    """
    if context.invoked_subcommand is not None:
        return
    if not topic:
        raise MisuseError("replay", "no part of the log is given", "Name a topic: --topic")
    asked = {
        "topics": topic,
        "partition": partition,
        "from_offset": from_offset,
        "to_offset": to_offset,
        "from_time": _read_time("--from-time", from_time),
        "to_time": _read_time("--to-time", to_time),
        "reason": reason,
    }
    client = connect()
    begun = client.post("/v1/ingest/replays", asked)
    _tell_bounds(begun)
    done = begun if detach else _follow_replay(client, begun)
    print_rows([done], _COLUMNS, as_json=as_json)
    _raise_failure(done)


@app.command("list")
def list_replays(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List replays, newest first: id, state, offsets read and in all, what became of the events.

    Example: adaptd replay list
    """
    print_rows(connect().get("/v1/ingest/replays", limit=limit), _COLUMNS, as_json=as_json)


@app.command("show")
def show(replay_id: ReplayId, as_json: AsJson = False) -> None:
    """Show one replay: what was asked, its ranges, how far it is.

    Example: adaptd replay show 69219a3f-0c1d
    """
    print_fields(connect().get(f"/v1/ingest/replays/{replay_id}"), as_json=as_json)


@app.command("follow")
def follow(replay_id: ReplayId, as_json: AsJson = False) -> None:
    """Wait for a replay's end. Ctrl-C leaves it running.

    Example: adaptd replay follow 69219a3f-0c1d
    """
    client = connect()
    done = _follow_replay(client, client.get(f"/v1/ingest/replays/{replay_id}"))
    print_rows([done], _COLUMNS, as_json=as_json)
    _raise_failure(done)


@app.command("cancel")
def cancel(replay_id: ReplayId, reason: Reason, as_json: AsJson = False) -> None:
    """End a replay. What it has stored stays; another one stores none of it twice.

    Example: adaptd replay cancel 69219a3f-0c1d --reason "wrong topic"
    """
    done = connect().post(f"/v1/ingest/replays/{replay_id}/cancel", {"reason": reason})
    print_rows([done], _COLUMNS, as_json=as_json)


def _follow_replay(client: DaemonClient, found: dict[str, Any]) -> dict[str, Any]:
    identity, told, heard_s = found["replay_id"], None, time.monotonic()
    try:
        with Bar(f"replay {identity}", total=found["size"]) as bar:
            while found["state"] == "running":
                bar.tell(found["read"], f"{found['interactions'] + found['feedback']} new events")
                if found["problem"] not in (None, told):
                    say(f"it waits: {found['problem']}")
                told = found["problem"]
                time.sleep(_POLL_S)
                try:
                    found = client.get(f"/v1/ingest/replays/{identity}")
                    heard_s = time.monotonic()
                except NoDaemonError:
                    if time.monotonic() - heard_s > _PATIENCE_S:
                        raise
    except KeyboardInterrupt:
        say(f"the replay goes on in the daemon; wait for it: adaptd replay follow {identity}")
        say(f"or end it: adaptd replay cancel {identity} --reason …")
        raise
    return found


def _tell_bounds(begun: dict[str, Any]) -> None:
    """Print the part of the request that cannot be read, or not by a replay."""
    for part in begun["ranges"]:
        where = f"{part['topic']}[{part['partition']}]"
        if part["gone"]:
            say(f"{where}: {part['gone']} offsets before {part['start']} are gone at the broker")
        if part["left_to_live"]:
            count = part["left_to_live"]
            say(f"{where}: {count} offsets from {part['end']} on are left to the live consumer")


def _raise_failure(done: dict[str, Any]) -> None:
    if done["state"] in ("failed", "cancelled"):
        where = f"replay {done['replay_id']}"
        problem = f"{done['state']} ({done['problem']})"
        raise RefusedError(where, problem, "What it has stored stays; begin another for the rest")


def _read_time(option: str, text: str | None) -> str | None:
    """UTC where no zone is given."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        remedy = "Write it as 2026-11-22T12:00:00Z"
        raise MisuseError(option, f"{text!r} is no time", remedy) from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()
