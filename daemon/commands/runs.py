"""`adaptd runs`: training runs and why they began."""

from typing import Annotated

import typer

from adaptd.daemon.commands.client import connect
from adaptd.daemon.commands.output import AsJson, Model, Reason, print_fields, print_rows

app = typer.Typer(no_args_is_help=True, help="Training runs. Example: adaptd runs list")
RunId = Annotated[str, typer.Argument(help="A run's id, as `adaptd runs list` prints it.")]
COLUMNS = (
    "run_id",
    "model",
    "state",
    "adapter",
    "progress.step",
    "progress.total",
    "progress.loss",
    "created_at",
    "finished_at",
    "reason",
)


@app.command("list")
def list_runs(
    model: Model = None,
    limit: Annotated[
        int, typer.Option(min=1, max=1000, help="At most so many, newest first.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first: id, alias, state, adapter, step, steps, loss, begun, ended, reason.

    Example: adaptd runs list --model support
    """
    print_rows(connect().get("/v1/runs", model=model, limit=limit), COLUMNS, as_json=as_json)


@app.command("show")
def show(run_id: RunId, as_json: AsJson = False) -> None:
    """Show one run: its trigger, progress, evaluation and every change of state.

    Example: adaptd runs show run-0198c2f1 --json
    """
    print_fields(connect().get(f"/v1/runs/{run_id}"), as_json=as_json)


@app.command("cancel")
def cancel(run_id: RunId, reason: Reason, as_json: AsJson = False) -> None:
    """Stop a run and throw away what it made.

    Example: adaptd runs cancel run-0198c2f1 --reason "wrong policy"
    """
    run = connect().post(f"/v1/runs/{run_id}/cancel", {"reason": reason})
    print_rows([run], ("run_id", "model", "state", "reason"), as_json=as_json)
