"""`adaptd gateway`: what the gateways say of themselves."""

import typer

from adaptd.daemon.commands.client import connect
from adaptd.daemon.commands.output import AsJson, print_rows

app = typer.Typer(no_args_is_help=True, help="Gateways. Example: adaptd gateway state")


@app.command("state")
def state(as_json: AsJson = False) -> None:
    """Show every gateway: name, table in force, requests in flight, events waiting on its disk.

    Example: adaptd gateway state --json
    """
    columns = ("gateway", "epoch", "in_flight", "spool_events", "texts_dropped", "seen_at")
    print_rows(connect().get("/v1/gateways"), columns, as_json=as_json)
