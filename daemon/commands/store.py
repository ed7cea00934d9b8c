"""`adaptd store`: its encryption, and letting a restored one act."""

from pathlib import Path
from typing import Annotated

import typer

from adaptd.daemon.commands.client import connect
from adaptd.daemon.commands.output import AsJson, Reason, print_fields, print_json, say
from adaptd.daemon.settings import load_settings
from adaptd.daemon.wire.files import private_files

app = typer.Typer(no_args_is_help=True, help="The store. Example: adaptd store rekey")


@app.command("rekey")
def rekey(
    old_key_path: Annotated[
        Path | None,
        typer.Option("--old-key-path", help="File (0600) with the key it has now. Plain: none."),
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Rewrite the store under the key of the settings: encrypt, decrypt or change the key.

    The daemon must be stopped. The old file stays until the new one is whole, so it needs the
    store's size in free space; its bytes stay on the disk until others take their place.

    Example: adaptd store rekey --old-key-path /etc/adaptd/old.key
    """
    settings = load_settings()
    from adaptd.daemon.store.database.encryption import key_of_file  # noqa: PLC0415
    from adaptd.daemon.store.database.rekey import rekey_store  # noqa: PLC0415
    from adaptd.daemon.wiring.installation import store_key  # noqa: PLC0415 - heavy

    old = key_of_file(old_key_path, name="--old-key-path") if old_key_path else None
    new = store_key(settings)
    with private_files():
        rekey_store(settings.store_path, old=old, new=new)
    if as_json:
        print_json({"store": str(settings.store_path), "encrypted": new is not None})
    say(f"the store is {'encrypted with the key of the settings' if new else 'plain'} now")
    if old is None:
        say("backups made before, and the disk's free space, still hold it unencrypted")


@app.command("release")
def release(reason: Reason, as_json: AsJson = False) -> None:
    """Let a restored store act though it does not agree with what runs.

    Its routes are published over those the gateways follow; rollouts that were on their way wait,
    their traffic on live, for `adaptd rollout resume`.

    Example: adaptd store release --reason "v9 is lost; v7 is what we want live"
    """
    print_fields(connect().post("/v1/store/release", {"reason": reason}), as_json=as_json)
