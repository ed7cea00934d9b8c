"""`adaptd demo`: the whole loop on this machine."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    seed: Annotated[int, typer.Option(help="Same seed, same customers.")] = 1,
    home: Annotated[Path, typer.Option(help="Emptied first; holds store and logs.")] = Path(
        "var/demo"
    ),
) -> None:
    """Run the whole loop on real parts, live on screen, and write demo-report.json.

    Example: adaptd demo
    """
    from daemon.demo.main import run_demo  # noqa: PLC0415 - heavy; no other command needs it

    run_demo(seed=seed, home=home)
