"""`adaptd init` and `adaptd doctor`: from nothing to a daemon that can run."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from adaptd.daemon.commands.client import connect, find_token
from adaptd.daemon.commands.errors import REFUSED
from adaptd.daemon.commands.output import AsJson, print_json, print_rows, say
from adaptd.daemon.settings import load_settings
from adaptd.daemon.wire.errors import AdaptdError, RefusedError

_FILES = {"adaptd.toml": "adaptd.toml", "support.yaml": "policies/support.yaml"}


def register(app: typer.Typer) -> None:
    app.command("init")(init)
    app.command("doctor")(doctor)


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write.")] = Path(),
) -> None:
    """Write an adaptd.toml and a policy to start from. What is there already stays as it is.

    Example: adaptd init
    """
    for name, target in _FILES.items():
        path = folder / target
        try:
            written = _write_new(path, _read_example(name))
        except OSError as error:
            problem = f"it cannot be written ({error.strerror})"
            raise RefusedError(str(path), problem, "Give a folder you may write in") from error
        say(f"{'wrote' if written else 'kept'} {path}")
        if written:
            typer.echo(path)
    say("Next: adaptd token create --tenant app; adaptd doctor; adaptd run")


def doctor(as_json: AsJson = False) -> None:
    """Find what keeps adaptd from working, and say what to do. Exit 1 where there is an error.

    Columns: level, check, what, what to do.

    Example: adaptd doctor
    """
    from adaptd.daemon.doctor.examine import examine  # noqa: PLC0415 - heavy; asks everybody

    settings = load_settings()
    token = find_token(settings.control_token_path)
    findings = examine(settings, _ask_daemon, control_token=token)
    rows = [msgspec.to_builtins(finding) for finding in findings]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, ("level", "check", "what", "remedy"), as_json=False)
    errors = sum(row["level"] == "error" for row in rows)
    warnings = sum(row["level"] == "warning" for row in rows)
    say(f"{errors} errors, {warnings} warnings")
    if errors:
        raise typer.Exit(REFUSED)


def _ask_daemon(path: str, **parameters: Any) -> Any:
    """None where no daemon answers, or it does not know us."""
    try:
        return connect().get(path, **parameters)
    except AdaptdError:
        return None


def _read_example(name: str) -> str:
    return (resources.files("adaptd.daemon.commands") / "examples" / name).read_text("utf-8")


def _write_new(path: Path, text: str) -> bool:
    """False where the file is there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True
