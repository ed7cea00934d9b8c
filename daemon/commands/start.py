"""`adaptd run`: the daemon itself, in the foreground."""

from typing import Annotated

import typer

from adaptd.daemon.commands.errors import exit_code
from adaptd.daemon.commands.output import say
from adaptd.daemon.settings import load_settings
from adaptd.daemon.wire.errors import AdaptdError


def register(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    stop_vllm: Annotated[
        bool,
        typer.Option("--stop-vllm", help="End vLLM too. By default it goes on serving alone."),
    ] = False,
) -> None:
    """Run the daemon until Ctrl-C or SIGTERM: ingestion, training, evaluation, rollouts, API.

    vLLM is started where the settings say so, and goes on serving when the daemon ends. Exits 70
    where ingestion met something that only a person may decide.

    Example: adaptd run
    """
    settings = load_settings()
    from adaptd.daemon.app import serve  # noqa: PLC0415 - heavy; no other command needs it
    from adaptd.daemon.system.logs import set_up_logs  # noqa: PLC0415

    set_up_logs(as_json=settings.log_json)
    try:
        serve(settings, stop_vllm=stop_vllm)
    except AdaptdError as error:
        say(str(error))
        raise typer.Exit(exit_code(error)) from error
