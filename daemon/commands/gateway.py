"""`adaptd gateway`: run one as a reverse proxy, and show the state of all.

`run` works with the extra `gateway` alone: the imports at the top need no package but typer.
"""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from adaptd.daemon.commands.errors import REFUSED, exit_code
from adaptd.daemon.commands.output import AsJson, print_rows, say
from adaptd.daemon.wire.errors import AdaptdError

_DRAIN_LIMIT_S = 30  # for answers under way at a stop; then their connections are closed

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Gateways. Example: adaptd gateway state",
)


@app.command("run")
def run(
    config: Annotated[
        Path,
        typer.Option(
            "--config", envvar="ADAPTD_GATEWAY_CONFIG", help="The gateway's JSON settings file."
        ),
    ],
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8080,
) -> None:
    """Run the gateway as a reverse proxy in front of a model server that somebody else starts.

    The settings name that server in `upstream_url`. Runs until Ctrl-C or SIGTERM.

    Example: adaptd gateway run --config gateway.json --port 8080
    """
    import uvicorn  # noqa: PLC0415 - may be missing; no other command needs it

    from adaptd.serving.gateway.proxy import create  # noqa: PLC0415 - heavy, as above
    from adaptd.serving.gateway.settings import read_settings  # noqa: PLC0415

    try:
        proxy = create(read_settings(config))
    except AdaptdError as error:
        say(str(error))
        raise typer.Exit(exit_code(error)) from error
    # No access log: the gateway captures each request, and a second record would hold nothing more.
    server = uvicorn.Server(
        uvicorn.Config(
            proxy,
            host=host,
            port=port,
            lifespan="on",
            access_log=False,
            timeout_graceful_shutdown=_DRAIN_LIMIT_S,
        )
    )
    with suppress(SystemExit):  # its code 3 for a taken port means `no daemon` here
        server.run()
    if not server.started:  # uvicorn has logged the reason
        raise typer.Exit(REFUSED)


@app.command("state")
def state(as_json: AsJson = False) -> None:
    """Show every gateway: name, table in force, requests in flight, events waiting on its disk.

    Example: adaptd gateway state --json
    """
    from adaptd.daemon.commands.client import connect  # noqa: PLC0415 - needs the extra `daemon`

    columns = ("gateway", "epoch", "in_flight", "spool_events", "texts_dropped", "seen_at")
    print_rows(connect().get("/v1/gateways"), columns, as_json=as_json)
