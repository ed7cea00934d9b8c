"""`adaptd rollout` and `adaptd rollback`: moving traffic by hand."""

from typing import Annotated

import typer

from adaptd.daemon.commands.client import connect
from adaptd.daemon.commands.output import AsJson, Model, Reason, print_fields, print_rows, say

app = typer.Typer(no_args_is_help=True, help="Rollouts. Example: adaptd rollout list")
RolloutId = Annotated[str, typer.Argument(help="Its id, as `adaptd rollout list` prints it.")]
COLUMNS = ("rollout_id", "model", "candidate", "state", "step", "paused", "created_at")


@app.command("list")
def list_rollouts(model: Model = None, as_json: AsJson = False) -> None:
    """List rollouts, newest first: id, alias, candidate, state, step, paused, begun.

    Example: adaptd rollout list --model support
    """
    print_rows(connect().get("/v1/rollouts", model=model), COLUMNS, as_json=as_json)


@app.command("show")
def show(rollout_id: RolloutId, as_json: AsJson = False) -> None:
    """Show one rollout: its step, evidence and every change of state.

    Example: adaptd rollout show rollout-0198c2f1
    """
    print_fields(connect().get(f"/v1/rollouts/{rollout_id}"), as_json=as_json)


@app.command("start")
def start(
    adapter: Annotated[str, typer.Argument(help="A version's name, like support@v3-1f00ba42.")],
    override: Annotated[
        str | None,
        typer.Option(help="Skip the gate, for this reason. The steps and the guard stay."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Begin a rollout: of an accepted version, or past the gate with --override and a reason.

    Example: adaptd rollout start support@v3-1f00ba42 --override "hot fix agreed with the desk"
    """
    body = {"adapter": adapter, "override_reason": override}
    print_rows([connect().post("/v1/rollouts", body)], COLUMNS, as_json=as_json)


@app.command("pause")
def pause(rollout_id: RolloutId, reason: Reason, as_json: AsJson = False) -> None:
    """Keep the present weights until resumed. The guard still takes a bad version back.

    Example: adaptd rollout pause rollout-0198c2f1 --reason "release freeze"
    """
    _act_on(rollout_id, "pause", reason, as_json=as_json)


@app.command("resume")
def resume(rollout_id: RolloutId, reason: Reason, as_json: AsJson = False) -> None:
    """Let a paused rollout go on.

    Example: adaptd rollout resume rollout-0198c2f1 --reason "freeze is over"
    """
    _act_on(rollout_id, "resume", reason, as_json=as_json)


@app.command("promote")
def promote(rollout_id: RolloutId, reason: Reason, as_json: AsJson = False) -> None:
    """Approve a rollout that waits for it, or let one go on though its evidence is inconclusive.

    Its steps keep their time, their units and their guard.

    Example: adaptd rollout promote rollout-0198c2f1 --reason "desk approved it"
    """
    _act_on(rollout_id, "promote", reason, as_json=as_json)


@app.command("abort")
def abort(rollout_id: RolloutId, reason: Reason, as_json: AsJson = False) -> None:
    """End a rollout: its traffic goes back to the live version.

    Example: adaptd rollout abort rollout-0198c2f1 --reason "superseded by hand"
    """
    _act_on(rollout_id, "abort", reason, as_json=as_json)


def rollback(
    model: Annotated[str, typer.Argument(help="The alias.")],
    reason: Reason,
    as_json: AsJson = False,
) -> None:
    """Take the newest version away from users at once: the canary, else the live one.

    Prints alias, the version taken back, what answers now (- is the base), its rollout, and whether
    every gateway has it already.

    Example: adaptd rollback support --reason "complaints"
    """
    done = connect().post("/v1/rollback", {"model": model, "reason": reason})
    columns = ("model", "version", "to", "rollout", "published")
    print_rows([done], columns, as_json=as_json)
    if not done["published"]:
        say("a gateway did not answer yet: it is told again until it does")


def _act_on(rollout_id: str, action: str, reason: str, *, as_json: bool) -> None:
    done = connect().post(f"/v1/rollouts/{rollout_id}/{action}", {"reason": reason})
    print_rows([done], COLUMNS, as_json=as_json)
