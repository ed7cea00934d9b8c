"""`adaptd policy`: is it right, can its gate conclude, how long do its steps take."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from adaptd.daemon.commands.client import connect
from adaptd.daemon.commands.errors import REFUSED
from adaptd.daemon.commands.output import AsJson, print_json, print_rows, say
from adaptd.daemon.settings import Settings, load_settings
from adaptd.daemon.wire.errors import AdaptdError, PolicyError, RefusedError

app = typer.Typer(no_args_is_help=True, help="Policy files. Example: adaptd policy check")


@app.command("check")
def check(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Policy files. Default: all in policies_dir.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check policies: every mistake with its line, items each margin needs, time each step needs.

    Columns: file, what, of what, has or weight, needs. Items are for the first to the eighth
    candidate of a holdout version, 5 points better where a tenth of the answers differ. A step's
    time is what it takes there to notice a doubled negative rate, at the traffic the daemon saw.

    Example: adaptd policy check policies/support.yaml
    """
    settings = load_settings()
    found = [_check_policy(path, settings) for path in files or _all_files(settings)]
    if as_json:
        print_json([msgspec.to_builtins(report) for report in found])
    else:
        rows = [row for report in found for row in _report_rows(report)]
        print_rows(rows, ("file", "what", "of", "has", "needs"), as_json=False)
        for report in found:
            _say_verdict(report)
    if any(report.problems for report in found):
        raise typer.Exit(REFUSED)


@app.command("schema")
def schema() -> None:
    """Print the JSON schema that editors complete policy files with.

    Example: adaptd policy schema > policies/schema.json
    """
    from adaptd.daemon.policy.schema import schema_text  # noqa: PLC0415 - only here

    typer.echo(schema_text(), nl=False)


def _check_policy(path: Path, settings: Settings) -> Any:
    from adaptd.daemon.doctor.policies import check_policy  # noqa: PLC0415 - brings scipy
    from adaptd.daemon.policy.load import Limits, line_of, load_policy  # noqa: PLC0415
    from adaptd.daemon.store.examples.where_check import where_problem  # noqa: PLC0415

    limits = Limits(
        bases=frozenset(settings.bases) or None, max_rank=settings.upstream.max_lora_rank
    )
    folder = path.parent
    loaded = load_policy(path, folder=folder, limits=limits)
    seen = _ask_traffic(loaded.policy.model) if loaded.policy else None
    report = check_policy(path, folder=folder, limits=limits, seen=seen)
    wrong = where_problem(loaded.policy.select.where) if loaded.policy else None
    if wrong is None:
        return report
    place = f"{path}:{line_of(loaded.text, 'select', 'where')}"
    problem = PolicyError(place, f"select.where: {wrong.problem}", wrong.remedy)
    return msgspec.structs.replace(report, problems=[*report.problems, str(problem)])


def _ask_traffic(model: str) -> Any:
    """Traffic of an alias as the running daemon saw it; None without a daemon or without
    traffic.
    """
    from adaptd.daemon.doctor.traffic import seen_from  # noqa: PLC0415

    try:
        return seen_from(connect().get("/v1/traffic", model=model))
    except AdaptdError:
        return None


def _all_files(settings: Settings) -> list[Path]:
    from adaptd.daemon.policy.files import policy_paths  # noqa: PLC0415 - only here

    found = policy_paths(settings.policies_dir)
    if not found:
        problem, remedy = "it holds no policy", "Write one: adaptd init"
        raise RefusedError(str(settings.policies_dir), problem, remedy)
    return found


def _report_rows(report: Any) -> list[dict[str, Any]]:
    items = [
        {
            "file": report.path,
            "what": "items",
            "of": need.criterion,
            "has": need.has,
            "needs": f"{need.first} to {need.eighth}",
        }
        for need in report.items
    ]
    steps = [
        {
            "file": report.path,
            "what": "time",
            "of": f"step {step.step}",
            "has": f"{step.weight:.0%}",
            "needs": step.words,
        }
        for step in report.steps
    ]
    return items + steps


def _say_verdict(report: Any) -> None:
    for problem in report.problems:
        say(problem)
    if not report.problems:
        say(f"{report.path}: fine")
