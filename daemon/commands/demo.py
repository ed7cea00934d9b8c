"""`adaptd demo`: the whole loop on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from adaptd.daemon.commands.output import say


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    seed: Annotated[int, typer.Option(help="Same seed, same customers.")] = 1,
    home: Annotated[Path, typer.Option(help="Emptied first; holds store and logs.")] = Path(
        "var/demo"
    ),
) -> None:
    """Run the whole loop on real parts, live on screen, and write demo-report.json.

    Ctrl-C or SIGTERM ends it with everything it started, and exit code 130 or 143.

    Example: adaptd demo
    """
    from adaptd.daemon.demo.stopping import Stopped, StopSignals  # noqa: PLC0415 - as below

    try:
        with StopSignals() as stop:
            from adaptd.daemon.demo.main import run_demo  # noqa: PLC0415 - heavy; no other command needs it

            run_demo(seed=seed, home=home, stop=stop)
    except Stopped as stopped:
        say("adaptd demo: stopped; everything it started has ended")
        raise typer.Exit(stopped.exit_code) from stopped
