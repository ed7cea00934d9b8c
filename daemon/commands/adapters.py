"""`adaptd adapters`: every version ever made."""

from typing import Annotated

import typer

from adaptd.daemon.commands.client import connect
from adaptd.daemon.commands.output import AsJson, Model, print_fields, print_rows

app = typer.Typer(no_args_is_help=True, help="Adapter versions. Example: adaptd adapters list")


@app.command("list")
def list_adapters(model: Model = None, as_json: AsJson = False) -> None:
    """List versions, newest first: name, alias, state, run, parent, made.

    Example: adaptd adapters list --model support
    """
    columns = ("name", "model", "state", "run_id", "parent", "created_at")
    print_rows(connect().get("/v1/adapters", model=model), columns, as_json=as_json)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A version's name, like support@v3-1f00ba42.")],
    as_json: AsJson = False,
) -> None:
    """Show one version: where it came from, its swap receipts and every change of state.

    Example: adaptd adapters show support@v3-1f00ba42
    """
    print_fields(connect().get(f"/v1/adapters/{name}"), as_json=as_json)
