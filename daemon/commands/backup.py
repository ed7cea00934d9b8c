"""`adaptd backup` and `adaptd restore`: a copy of the installation, and back."""

import os
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from adaptd.daemon.commands.client import DaemonClient, connect
from adaptd.daemon.commands.errors import NoDaemonError
from adaptd.daemon.commands.output import AsJson, print_fields, say
from adaptd.daemon.settings import Settings, load_settings
from adaptd.daemon.wire.errors import RefusedError

_POLL_S = 0.2
_QUIET_S = 2.0  # below that nobody needs a progress bar
_MIB = 1 << 20


def register(app: typer.Typer) -> None:
    app.command("backup")(backup)
    app.command("restore")(restore)


def backup(
    destination: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Only read the backup there again and check it.")
    ] = False,
    without_secrets: Annotated[
        bool, typer.Option("--without-secrets", help="Leave out secret.key and tokens.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy store, adapters, policies and secrets into a folder, while the daemon runs or without.

    Writers do not wait. The folder gets its name when it is whole; an interrupted backup leaves
    none. An encrypted store's copy is encrypted with the same key, which is not in the backup: keep
    it elsewhere.

    Example: adaptd backup /backups/adaptd-monday
    """
    destination = destination.absolute()
    if verify:
        print_fields(_verify_backup(destination), as_json=as_json)
        return
    settings = load_settings()
    try:
        made = _by_daemon(connect(), destination, secrets=not without_secrets)
    except NoDaemonError:
        if os.environ.get("ADAPTD_URL"):
            raise
        made = _by_ourselves(settings, destination, secrets=not without_secrets)
    for name, problem in made["missing"].items():
        say(f"warning: adapter {name} is not in the backup: {problem}")
    print_fields({"destination": str(destination), **made}, as_json=as_json)


def restore(
    source: Annotated[Path, typer.Argument(help="What `adaptd backup` made.")],
    home: Annotated[
        Path | None,
        typer.Option(
            "--home", help="Instead of the settings' folders; policies go to HOME/policies."
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Move a store that is there aside.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a backup and put it in place of this installation, with the daemon stopped.

    At its next start the daemon reads events again from Kafka, and nothing else moves until
    gateways, server and broker agree with the store: see `adaptd status` and `adaptd store
    release`. Erasures made after the backup have to be repeated.

    Example: adaptd restore /backups/adaptd-monday
    """
    from adaptd.daemon.store.backups.layout import Place  # noqa: PLC0415
    from adaptd.daemon.store.backups.restore import restore_backup  # noqa: PLC0415
    from adaptd.daemon.wiring.installation import store_key  # noqa: PLC0415 - heavy

    settings = load_settings()
    place = Place(settings.home.absolute(), settings.policies_dir)
    if home is not None:
        place = Place(home.absolute(), home.absolute() / "policies")
    progress = _Progress()
    done = restore_backup(
        source.absolute(), place, key=store_key(settings), replace=replace, told=progress.tell
    )
    for path in done.kept:
        say(f"kept: {path} differs from the backup's")
    say(f"events and erasures after {done.as_of:%Y-%m-%d %H:%M:%S} UTC are not in this store")
    say("start the daemon; nothing moves until it agrees with what runs: adaptd status")
    print_fields(msgspec.to_builtins(done), as_json=as_json)


def _by_daemon(client: DaemonClient, destination: Path, *, secrets: bool) -> dict[str, Any]:
    job = client.post("/v1/backup", {"destination": str(destination), "secrets": secrets})
    progress = _Progress()
    try:
        while job["state"] == "running":
            progress.tell(job["phase"], job["done_bytes"], job["total_bytes"])
            time.sleep(_POLL_S)
            job = client.get("/v1/backup")
    except KeyboardInterrupt:
        client.delete("/v1/backup")
        say("the backup was given up; nothing was left")
        raise
    if job["state"] != "done":
        problem = job["problem"] or f"the backup was {job['state']}"
        raise RefusedError("backup", problem, "See the daemon's log")
    return {**job["manifest"], "took_s": job["took_s"]}


def _by_ourselves(settings: Settings, destination: Path, *, secrets: bool) -> dict[str, Any]:
    """The store is opened for reading only: a migration is the daemon's to make."""
    from adaptd.daemon.recovery.backups import summary  # noqa: PLC0415 - heavy
    from adaptd.daemon.store.backups.backup import back_up  # noqa: PLC0415
    from adaptd.daemon.store.backups.layout import Place  # noqa: PLC0415
    from adaptd.daemon.store.database.opening import open_store  # noqa: PLC0415
    from adaptd.daemon.wiring.installation import store_key  # noqa: PLC0415

    if not settings.store_path.exists():
        remedy = "Set ADAPTD_HOME to where it lies, or start the daemon"
        raise RefusedError(str(settings.store_path), "there is no store", remedy)
    key = store_key(settings)
    began, progress = time.monotonic(), _Progress()
    connection = open_store(
        settings.store_path, key=key, memory_limit=settings.store_memory, read_only=True
    )
    try:
        place = Place(settings.home, settings.policies_dir)
        made = back_up(connection, place, destination, key=key, secrets=secrets, told=progress.tell)
    finally:
        connection.close()
    return {**summary(made), "took_s": round(time.monotonic() - began, 3)}


def _verify_backup(destination: Path) -> dict[str, Any]:
    from adaptd.daemon.recovery.backups import summary  # noqa: PLC0415 - heavy
    from adaptd.daemon.store.backups.layout import verify_backup  # noqa: PLC0415

    return {"whole": True, **summary(verify_backup(destination, _Progress().tell))}


class _Progress:
    """One line on stderr for each tenth, once it takes longer than two seconds."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._told = ("", -1)

    def tell(self, phase: str, done: int, total: int) -> None:
        share = min(10, 10 * done // total) if total else 0
        if time.monotonic() - self._began < _QUIET_S or (phase, share) == self._told:
            return
        self._told = (phase, share)
        of = f" of about {total / _MIB:.0f} MiB" if total else ""
        say(f"{phase}: {done / _MIB:.0f} MiB{of}")
