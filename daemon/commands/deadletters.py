"""`adaptd deadletters`: events that could not be used, with their bytes and the reason."""

from typing import Annotated

import typer

from daemon.commands.client import connect
from daemon.commands.output import AsJson, print_fields, print_rows

app = typer.Typer(
    no_args_is_help=True, help="Events that could not be used. Example: adaptd deadletters list"
)


@app.command("list")
def list_letters(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first: id, received, reason, detail, topic, partition, position.

    Example: adaptd deadletters list --limit 5
    """
    columns = ("id", "received_at", "reason", "detail", "topic", "partition", "position")
    print_rows(connect().get("/v1/deadletters", limit=limit), columns, as_json=as_json)


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
