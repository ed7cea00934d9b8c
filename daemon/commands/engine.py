"""`adaptd engine`: the vLLM that adaptd started and that outlives the daemon."""

import time

import httpx
import typer

from adaptd.daemon.commands.client import connect
from adaptd.daemon.commands.errors import NoDaemonError
from adaptd.daemon.commands.output import AsJson, print_fields, say
from adaptd.daemon.settings import Settings, load_settings
from adaptd.daemon.wire.errors import AdaptdError, RefusedError
from adaptd.serving.host.server_process import ServerRecord, end_server, is_alive, read_record

app = typer.Typer(no_args_is_help=True, help="The vLLM server. Example: adaptd engine status")
_GRACE_S = 20.0


@app.command("status")
def engine_status(as_json: AsJson = False) -> None:
    """Show the server adaptd started: its process, address, and whether it answers.

    Example: adaptd engine status
    """
    settings = load_settings()
    record = _find_server(settings)
    shown = {
        "url": settings.upstream.url,
        "managed": settings.upstream.manage,
        "pid": record.pid if record else None,
        "running_s": round(time.time() - record.started_at) if record else None,
        "answers": _does_answer(settings.upstream.url),
        "log": str(settings.home / "logs" / "vllm.log"),
    }
    print_fields(shown, as_json=as_json)


@app.command("stop")
def stop() -> None:
    """End the server and all its processes. Refused while a daemon would start it again.

    Example: adaptd engine stop
    """
    settings = load_settings()
    if settings.upstream.manage and _daemon_answers():
        problem, remedy = "a daemon runs and would start it again", "Stop the daemon first"
        raise RefusedError("engine", problem, f"{remedy}, or use `adaptd engine restart`")
    _end_server(settings)
    say("vLLM has ended")


@app.command("restart")
def restart() -> None:
    """End the server; the running daemon starts it anew, with the settings it was started with.

    Requests are refused until vLLM is up again, a minute or two. Example: adaptd engine restart
    """
    settings = load_settings()
    connect().get("/v1/ingest")  # no daemon: nobody would start it again
    _end_server(settings)
    say("vLLM has ended; the daemon starts it again: see `adaptd watch`")


def _end_server(settings: Settings) -> None:
    record = _find_server(settings)
    if record is None:
        raise RefusedError("engine", "no vLLM of ours runs", "Nothing to stop")
    end_server(record, grace_s=_GRACE_S)


def _find_server(settings: Settings) -> ServerRecord | None:
    record = read_record(settings.home / "vllm.json")
    return record if record is not None and is_alive(record) else None


def _daemon_answers() -> bool:
    try:
        connect().get("/v1/ingest")
    except NoDaemonError:
        return False
    except AdaptdError:
        return True
    return True


def _does_answer(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False
