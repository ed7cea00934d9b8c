"""`adaptd ingest`: where events come from, and what halted them."""

import typer

from adaptd.daemon.commands.client import connect
from adaptd.daemon.commands.output import AsJson, Reason, print_fields

app = typer.Typer(no_args_is_help=True, help="Event ingestion. Example: adaptd ingest status")


@app.command("status")
def ingest_status(as_json: AsJson = False) -> None:
    """Show the source, positions, and why ingestion is halted where it is.

    Example: adaptd ingest status
    """
    print_fields(connect().get("/v1/ingest"), as_json=as_json)


@app.command("resume")
def resume(reason: Reason, as_json: AsJson = False) -> None:
    """Clear a halt after looking at its cause; the consumer starts again where the store stands.

    Example: adaptd ingest resume --reason "topic restored from the mirror"
    """
    print_fields(connect().post("/v1/ingest/resume", {"reason": reason}), as_json=as_json)


@app.command("resync")
def resync(reason: Reason, as_json: AsJson = False) -> None:
    """Clear a halt where events are gone at the broker: accept the gap, on record, and read on.

    Example: adaptd ingest resync --reason "topic was recreated; the gap is known"
    """
    print_fields(connect().post("/v1/ingest/resync", {"reason": reason}), as_json=as_json)
