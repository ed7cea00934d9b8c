"""`adaptd token`: who may call. Works on {home}/tokens.json; gateway and daemon notice at once."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
import typer

from adaptd.daemon.commands.errors import MisuseError
from adaptd.daemon.commands.output import AsJson, print_json, print_rows, say
from adaptd.daemon.settings import load_settings
from adaptd.daemon.wire.errors import RefusedError
from adaptd.daemon.wire.tokens import SCOPES, SOURCES, create_token, list_tokens, revoke_token

app = typer.Typer(no_args_is_help=True, help="API tokens. Example: adaptd token list")
_SPAN = re.compile(r"^([1-9][0-9]*)([hdw])$")
_HOURS = {"h": 1, "d": 24, "w": 7 * 24}


@app.command("create")
def create(
    tenant: Annotated[str, typer.Option(help="Whose application it is: letters, digits, . _ -")],
    scope: Annotated[
        list[str], typer.Option("--scope", "-s", help=f"Repeat for more: {', '.join(SCOPES)}.")
    ] = ["chat", "feedback"],  # noqa: B006 - typer copies it
    source: Annotated[
        list[str],
        typer.Option("--source", help=f"What its feedback may claim to be: {', '.join(SOURCES)}."),
    ] = ["user"],  # noqa: B006 - typer copies it
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Only these aliases; repeatable. Default: all."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="After how long it ends: 12h, 90d, 52w. Default: never.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it, this once: only its hash is kept.

    Example: adaptd token create --tenant helpdesk --scope chat --scope feedback --expires 90d
    """
    token, entry = create_token(
        load_settings().tokens_path,
        tenant=tenant,
        scopes=tuple(scope),
        sources=tuple(source),
        models=tuple(model) if model else None,
        expires_at=_read_expiry(expires),
    )
    if as_json:
        print_json({"id": entry.id, "token": token, **_describe_token(entry)})
    else:
        typer.echo(token)
        say(f"token {entry.id} for {tenant}: keep it now, it is not shown again")


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List tokens, oldest first: id, tenant, scopes, sources, aliases, made, ends. Never the token.

    Example: adaptd token list
    """
    found = [_describe_token(entry) for entry in list_tokens(load_settings().tokens_path)]
    columns = ("id", "tenant", "scopes", "sources", "models", "created_at", "expires_at")
    print_rows(found, columns, as_json=as_json)


@app.command("revoke")
def revoke(
    token_id: Annotated[str, typer.Argument(help="Its id, as `adaptd token list` prints it.")],
) -> None:
    """Forget a token at once.

    Example: adaptd token revoke 1f00ba42
    """
    if not revoke_token(load_settings().tokens_path, token_id):
        raise RefusedError(f"token {token_id}", "there is no such token", "See `adaptd token list`")
    say(f"token {token_id} is no longer valid")


def _describe_token(entry: msgspec.Struct) -> dict[str, object]:
    fields = msgspec.to_builtins(entry)
    fields.pop("sha256")
    return fields


def _read_expiry(span: str | None) -> datetime | None:
    if span is None:
        return None
    if (found := _SPAN.match(span)) is None:
        raise MisuseError("--expires", f"{span!r} is not a time", "Write 12h, 90d or 52w")
    return datetime.now(UTC) + timedelta(hours=int(found[1]) * _HOURS[found[2]])
