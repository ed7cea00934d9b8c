"""The `adaptd` command. Exit 0 done, 1 refused, 2 misused, 3 no daemon, 70 halted."""

import io
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from adaptd import __version__
from adaptd.daemon.commands import (
    adapters,
    backup,
    deadletters,
    demo,
    engine,
    erase,
    gateway,
    importing,
    ingest,
    policy,
    replay,
    rollout,
    runs,
    setup,
    start,
    status,
    store,
    token,
)
from adaptd.daemon.commands.errors import exit_code
from adaptd.daemon.commands.output import say
from adaptd.daemon.wire.errors import AdaptdError
from adaptd.daemon.wire.texts import unencodable_in

_INTERRUPTED = 128 + signal.SIGINT


class _Group(TyperGroup):
    """Turns our errors into one line on stderr and their exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse words that are not UTF-8: no answer, log or store could hold them."""
        if (word := unencodable_in(args)) is not None:
            raise typer.BadParameter(f"{word} is not UTF-8: write it so, or rename the file", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except AdaptdError as error:
            say(str(error))
            raise typer.Exit(exit_code(error)) from error


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Keeps a served language model learning from its own production feedback.",
    epilog="Exit 0 done, 1 refused, 2 misused, 3 no daemon, 70 halted. Example: adaptd status",
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Keeps a served language model learning from its own production feedback."""


for _register in (start, demo, setup, status, backup, erase, importing):
    _register.register(app)
for _name, _group in {
    "policy": policy,
    "runs": runs,
    "adapters": adapters,
    "rollout": rollout,
    "deadletters": deadletters,
    "ingest": ingest,
    "replay": replay,
    "token": token,
    "store": store,
    "gateway": gateway,
    "engine": engine,
    "erasures": erase,
}.items():
    app.add_typer(_group.app, name=_name, rich_help_panel=None)
app.command("rollback")(rollout.rollback)


def main() -> None:
    """Run the command line. A Ctrl-C that no command handles is exit code 130, without a trace."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # what it cannot show it shows as a code
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:  # outside of Typer, which does the same
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
