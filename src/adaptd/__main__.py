"""The entry of the `adaptd` command: says what to do where a package is missing.

Imports nothing but the standard library, because the base install has no typer, and the extra
`gateway` has typer and uvicorn but no other package of the daemon's.
"""

import sys

_DAEMON = "Install what this command needs: pip install 'adaptd[daemon]'"
_REMEDIES = {  # by a command's first words; _DAEMON for every other
    ("gateway", "run"): "Install what this command needs: pip install 'adaptd[gateway]'",
    # No extra brings its base model, and the package index has no CPU build of torch for vLLM.
    ("demo",): "The demo runs in a checkout of the source: clone adaptd and run make demo there",
}


def main() -> None:
    """Run the command line. Exit 1 with one line on stderr where a package is not installed."""
    try:
        _run_command()
    except ModuleNotFoundError as error:
        package = (error.name or "adaptd").partition(".")[0]
        if package == "adaptd":  # a fault of ours, not of the installation
            raise
        words = tuple(sys.argv[1:])
        found = (text for key, text in _REMEDIES.items() if words[: len(key)] == key)
        sys.exit(f"adaptd: the package {package} is not installed. {next(found, _DAEMON)}")


def _run_command() -> None:
    try:
        from adaptd.daemon.cli import main as run  # noqa: PLC0415 - may not be importable
    except ModuleNotFoundError:
        if sys.argv[1:2] != ["gateway"]:
            raise
    else:
        run()
        return
    from adaptd.daemon.commands.gateway import app  # noqa: PLC0415 - needs typer

    app(args=sys.argv[2:], prog_name="adaptd gateway")


if __name__ == "__main__":
    main()
